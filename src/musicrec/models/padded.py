"""SASRec over padded histories: a twin for runtimes that know tensors and no flat batches.

It answers as ``SASRec.forward`` does and holds the very same layers; only what a flat batch does
by rows (positions, attention, which tracks lie how far back) is said again here, in operations
that a fixed graph can hold: no loop over groups, no shape that depends on a value.

Two things are made when the twin is, and stand for the weights of that moment: the table that
scores are taken with, and how long each embedding is. So a file holds one table of the catalogue
also where scores go by direction and the table is not the embeddings themselves.

Axes: ``batch`` histories; ``length`` columns, the newest last; ``dim``; ``heads``; ``items`` =
catalogue_size + 1.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from musicrec.models.biases import Biases
from musicrec.models.block import Block
from musicrec.models.sasrec import SASRec


class PaddedSASRec(nn.Module):
    """Scores every item as the next one of left-padded histories.

    Args:
        model: in evaluation mode; it is not changed, and its layers are shared.
    """

    def __init__(self, model: SASRec) -> None:
        super().__init__()
        self.position_embedding = model.position_embedding
        self.blocks = model.blocks
        self.norm = model.norm
        self.log_temperature = model.log_temperature
        self.repeats = model.repeats
        self.transitions = model.transitions
        weight = model.item_embedding.weight.detach()
        scale = torch.full((len(weight), 1), weight.shape[1] ** 0.5)
        if model.is_cosine:
            scale *= weight.norm(dim=1, keepdim=True)
        self.register_buffer("table", model.output_table().detach().clone(), persistent=False)
        self.register_buffer("scale", scale, persistent=False)
        self.table: Tensor
        """``(items, dim)`` what hidden states are multiplied with."""
        self.scale: Tensor
        """``(items, 1)`` times ``table``, it is what goes into the first block."""

    def forward(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and what they were made from.

        Args:
            items: ``(batch, length)`` int64 item indices, oldest first, left-padded with 0; at
                most ``max_length`` columns. A row whose last column is 0 has no newest item, and
                nothing but NaN comes back for it.

        Returns:
            ``(batch, items)``, where padding scores ``-inf``, and ``(batch, dim)``, which times
            ``table`` is the scores without what is added for repeats and transitions.
        """
        is_item = items != 0
        x = self._embed(items)
        # Padding may look at itself, or a softmax over nothing would give NaN to all that follow.
        length = items.shape[1]
        place = torch.arange(length, device=items.device)
        itself = place == place[:, None]
        mask = (place <= place[:, None]) & (is_item[:, None, :] | itself)
        position = (is_item.cumsum(1) - 1).clamp(min=0)
        for block in self.blocks[:-1]:
            x = _attended(cast(Block, block), x, position, mask)
        x = _attended(cast(Block, self.blocks[-1]), x, position, mask, newest_alone=True)
        hidden = self.norm(x[:, 0])
        hidden = hidden.masked_fill(~is_item[:, -1:], float("nan"))
        biases = self._biases(hidden, items)
        if self.log_temperature is not None:
            hidden = normalize(hidden, dim=1) * self.log_temperature.exp()
        return biases.add_to(hidden @ self.table.T), hidden

    def _embed(self, items: Tensor) -> Tensor:
        x = self.table[items] * self.scale[items]
        if self.position_embedding is not None:
            x = x + self.position_embedding.weight[: items.shape[1]].flip(0)
        return x

    def _biases(self, hidden: Tensor, items: Tensor) -> Biases:
        """What to add to the scores; to padding's, so much that it never wins."""
        padding = torch.zeros_like(items[:, :1])
        biases = Biases(padding, torch.full_like(hidden[:, :1], float("-inf")))
        if self.repeats is not None:
            biases = biases.beside(self.repeats(hidden, items.flip(1)))
        # A history of one column has no item at lag 1: zeros before it stand for none.
        items = nn.functional.pad(items, (len(self.transitions), 0))
        for lag, memory in enumerate(self.transitions):
            biases = biases.beside(memory(hidden, items[:, -1 - lag]))
        return biases


def _attended(
    block: Block, x: Tensor, position: Tensor, mask: Tensor, *, newest_alone: bool = False
) -> Tensor:
    """``(batch, length, dim)`` after one block.

    Args:
        position: ``(batch, length)`` items of the same history that come before.
        mask: ``(batch, length, length)`` which columns each looks at.
        newest_alone: only the last column comes back.
    """
    start = x.shape[1] - 1 if newest_alone else 0
    dim = x.shape[2]
    normed = block.attention_norm(x)
    weight, bias = block.query_key_value.weight, block.query_key_value.bias
    query = _by_head(linear(normed[:, start:], weight[:dim], bias[:dim]), block.heads)
    key, value = (
        _by_head(part, block.heads)
        for part in linear(normed, weight[dim:], bias[dim:]).chunk(2, dim=2)
    )
    if block.rotary is not None:
        query = _turned(block, query, position[:, start:])
        key = _turned(block, key, position)
    # To (batch, heads, queries, keys).
    scores = query.transpose(1, 2) @ key.permute(0, 2, 3, 1) / math.sqrt(dim // block.heads)
    scores = scores.masked_fill(~mask[:, None, start:], float("-inf"))
    mixed = scores.softmax(dim=3) @ value.transpose(1, 2)
    x = x[:, start:] + block.attention_out(mixed.transpose(1, 2).flatten(2))
    attended: Tensor = x + block.feed_forward(block.feed_forward_norm(x))
    return attended


def _by_head(projected: Tensor, heads: int) -> Tensor:
    """``(batch, length, dim)`` to ``(batch, length, heads, head_dim)``."""
    return projected.reshape(*projected.shape[:2], heads, projected.shape[2] // heads)


def _turned(block: Block, x: Tensor, position: Tensor) -> Tensor:
    """``(batch, length, heads, head_dim)`` turned by position, in the shape that rotary takes."""
    assert block.rotary is not None
    turned: Tensor = block.rotary(x.flatten(0, 1)[:, None], position.flatten())
    return turned.reshape(x.shape)
