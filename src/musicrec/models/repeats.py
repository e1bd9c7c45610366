"""Repeats: how likely each track of a window is to be heard again just now.

A sequence model scores items by what they are; that this listener has just heard them it must
press into ``dim`` numbers first. Here every token gives each lag a bias: "the track from two plays
ago comes again", "what was played last does not". It is added to the scores of the tracks heard
at these lags, those of a track heard twice summed, and learnt with everything else. So it knows
recency, counts (more plays, more summands) and, being a function of the token, when this listener
repeats at all. After the personal scores of PISA (arXiv 2408.16578) and pointer mixtures
(arXiv 1609.07843), in logits instead of probabilities: one softmax, one loss.

Axes: ``tokens`` (or any rows of a flat batch); ``lags``, 0 for the token's own track, 1 for the one
before, and so on.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from musicrec.models.biases import Biases


class RepeatHead(nn.Module):
    """A bias for each lag, from what the model knows after a token.

    Args:
        dim: of what the model knows.
        max_length: lags; longer windows there are none.
    """

    def __init__(self, dim: int, max_length: int) -> None:
        super().__init__()
        self.by_lag = nn.Linear(dim, max_length)
        # What all lags share, by itself: each lag alone would have to learn it from its few plays.
        self.at_all = nn.Linear(dim, 1)
        for layer in (self.by_lag, self.at_all):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, hidden: Tensor, lagged: Tensor) -> Biases:
        """``(tokens, dim)`` and ``(tokens, lags)`` items to what to add to their scores."""
        lags = lagged.shape[1]
        weight, bias = self.by_lag.weight[:lags], self.by_lag.bias[:lags]
        return Biases(lagged, nn.functional.linear(hidden, weight, bias) + self.at_all(hidden))


def lagged(items: Tensor, position: Tensor, rows: Tensor | None = None) -> Tensor:
    """The items of each row's own window, newest first.

    Args:
        items: ``(tokens,)`` int64 of a flat batch.
        position: ``(tokens,)`` tokens of the same window that come before.
        rows: ``(rows,)`` which tokens to answer for; None: all.

    Returns:
        ``(rows, lags)`` int64, as many lags as the longest of these windows has tokens; 0 beyond a
        window's first.
    """
    if rows is None:
        rows = torch.arange(len(items), device=items.device)
    position = position[rows, None]
    lag = torch.arange(int(position.max()) + 1 if len(rows) else 0, device=items.device)
    return items[(rows[:, None] - lag).clamp_(min=0)].masked_fill_(lag > position, 0)
