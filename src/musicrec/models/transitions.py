"""Transitions: what most often came after a track, remembered by count instead of weight.

Albums and playlists repeat to the letter what embeddings learn only slowly: this track, then that
one. So the counts of first-order Markov stand in a table, the most frequent successors of each
track, and every token gives their scores a bias::

    bias(j) = a * log(times j followed) - b * log(times anything followed) + c

with ``a``, ``b`` and ``c`` a linear function of what the model knows after the token, so it learns
when to follow the crowd. A memory has a *lag*: at 0 it remembers what came right after, at 1 what
came one play later, and so on; asked with the track of that lag it still knows the album when a
stranger, a skip or a shuffled pair stands between. Sequential rules of session-based recommenders
are its kin (Ludewig & Jannach, arXiv 1803.09587). Each starts from nothing (all three 0) and is
trained with everything else, in logits: one softmax, one loss, as in ``repeats``. A mixture of
counts and a network is old in language models (arXiv 1911.00172); FPMC (WWW 2010) is its kin here.

In training, a token's own transition is in the counts, and would give its target away. It is taken
out for that token: a successor that followed once, here, has no bias here. And most tokens
(``_FORGET``) get no biases at all, or the counts would explain what the embeddings then never
learn: without that, 30Music lost a tenth of its HR@10 (docs/LOG.md).

Axes: ``items`` = catalogue_size + 1; ``successors`` kept of each; ``tokens``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from musicrec.models.biases import Biases

_FORGET = 0.8
"""Share of the tokens that train without the memory."""


class TransitionMemory(nn.Module):
    """The most frequent successors of each item, and how much to make of them.

    The counts are buffers, so checkpoints and bundles hold them: 8 bytes a successor.

    Args:
        catalogue_size: number of items.
        successors: kept of each item, at most.
        dim: of what the model knows.
    """

    def __init__(self, catalogue_size: int, successors: int, dim: int) -> None:
        super().__init__()
        items = catalogue_size + 1
        self.register_buffer("successors", torch.zeros(items, successors, dtype=torch.int32))
        self.register_buffer("counts", torch.zeros(items, successors))
        self.register_buffer("totals", torch.zeros(items))
        self.successors: Tensor
        """``(items, successors)`` int32, the most frequent first, equals by index; 0 where none."""
        self.counts: Tensor
        """``(items, successors)`` times each followed; 0 where none."""
        self.totals: Tensor
        """``(items,)`` times anything followed."""
        self.use = nn.Linear(dim, 3)
        nn.init.zeros_(self.use.weight)
        nn.init.zeros_(self.use.bias)

    def remember(self, before: Tensor, after: Tensor) -> None:
        """Count these transitions, and no others.

        Args:
            before, after: ``(transitions,)`` int64 items, the second played after the first, as far
                after it as this memory's lag says.
        """
        items, most = self.successors.shape
        pairs, counts = torch.unique(before * items + after, return_counts=True)
        # Within an item the most frequent first; both sorts are stable, so equals stay by index.
        order = counts.argsort(descending=True, stable=True)
        order = order[(pairs[order] // items).argsort(stable=True)]
        pairs, counts = pairs[order], counts[order]
        first = pairs // items
        place = torch.arange(len(pairs)) - torch.searchsorted(first, first)
        is_kept = place < most
        where = first[is_kept], place[is_kept]
        self.successors.zero_()[where] = (pairs[is_kept] % items).int()
        self.counts.zero_()[where] = counts[is_kept].float()
        self.totals.copy_(torch.bincount(before, minlength=items))

    def forward(self, hidden: Tensor, last: Tensor, learnt: Tensor | None = None) -> Biases:
        """What to add to the scores of each token's successors.

        Args:
            hidden: ``(tokens, dim)`` what the model knows after each token.
            last: ``(tokens,)`` int64, each token's own item, or at a lag that of an earlier token
                of the same window; 0, where there is none, has no successor.
            learnt: ``(tokens,)`` int64, what followed each token where that is in the counts.
        """
        successors, counts = self.successors[last].long(), self.counts[last]
        total = self.totals[last][:, None]
        if learnt is not None:
            counts = counts - (successors == learnt[:, None]).to(counts.dtype)
            total = total - 1
        by_count, by_total, constant = self.use(hidden).split(1, dim=1)
        values = by_count * counts.clamp(min=1).log() - by_total * total.clamp(min=1).log()
        is_silent = counts < 1
        if self.training:
            is_silent |= torch.rand_like(total) < _FORGET
        return Biases(successors, (values + constant).masked_fill(is_silent, 0))


def earlier(items: Tensor, position: Tensor, lag: int, rows: Tensor | None = None) -> Tensor:
    """The item so many tokens before each row, of the same window; 0 where there is none.

    Args:
        items: ``(tokens,)`` int64 of a flat batch.
        position: ``(tokens,)`` tokens of the same window that come before.
        lag: 0 is the row's own item.
        rows: ``(rows,)`` which tokens to answer for; None: all.
    """
    if rows is None:
        rows = torch.arange(len(items), device=items.device)
    return items[(rows - lag).clamp_(min=0)].masked_fill_(position[rows] < lag, 0)
