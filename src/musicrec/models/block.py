"""One block of the transformer: attention, then feed-forward, on flat rows.

Axes as in ``sasrec``: ``tokens`` of all windows of a batch, one window after the other;
``windows``; ``dim``; ``heads``; ``head_dim`` = dim / heads.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, silu

from musicrec.models.attention import attend, attend_newest
from musicrec.models.dropout import Dropout
from musicrec.models.layout import Layout

Positions = Literal["rotary", "learned"]
FeedForward = Literal["swiglu", "relu"]

_SLOWEST = 1e4
"""Rotary: the slowest pair of numbers turns once in about 2π times as many interactions."""


class Block(nn.Module):
    """Attention and feed-forward, each normalised before, dropped out after, added to its input."""

    def __init__(
        self,
        dim: int,
        heads: int,
        dropout: float,
        *,
        max_length: int,
        positions: Positions,
        feed_forward: FeedForward,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.attention_dropout = dropout
        self.attention_norm = nn.LayerNorm(dim)
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.rotary = Rotary(dim // heads, max_length) if positions == "rotary" else None
        self.attention_out = nn.Linear(dim, dim)
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.feed_forward = (
            SwiGLU(dim, 2 * dim, dropout)
            if feed_forward == "swiglu"
            else nn.Sequential(
                nn.Linear(dim, dim), nn.ReLU(), Dropout(dropout), nn.Linear(dim, dim)
            )
        )
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """``(tokens, dim)`` to the same."""
        query_key_value = self._heads(self.query_key_value(self.attention_norm(x)), parts=3)
        if self.rotary is not None:
            query_key, value = query_key_value[:, :2], query_key_value[:, 2:]
            turned = self.rotary(query_key, layout.position)
            query_key_value = torch.cat([turned, value], dim=1)
        return self._add(x, attend(query_key_value, layout, self._attention_dropout))

    def newest(self, x: Tensor, layout: Layout) -> Tensor:
        """``(tokens, dim)`` to ``(windows, dim)``: the newest rows of what ``forward`` gives."""
        dim = x.shape[1]
        weight, bias = self.query_key_value.weight, self.query_key_value.bias
        normed = self.attention_norm(x)
        query = self._heads(linear(normed[layout.newest], weight[:dim], bias[:dim]), parts=1)
        key_value = self._heads(linear(normed, weight[dim:], bias[dim:]), parts=2)
        if self.rotary is not None:
            query = self.rotary(query, layout.position[layout.newest])
            key, value = key_value[:, :1], key_value[:, 1:]
            key_value = torch.cat([self.rotary(key, layout.position), value], dim=1)
        mixed = attend_newest(query[:, 0], key_value, layout, self._attention_dropout)
        return self._add(x[layout.newest], mixed)

    @property
    def _attention_dropout(self) -> float:
        return self.attention_dropout if self.training else 0.0

    def _heads(self, projected: Tensor, parts: int) -> Tensor:
        """``(rows, parts * dim)`` to ``(rows, parts, heads, head_dim)``."""
        head_dim = projected.shape[1] // (parts * self.heads)
        return projected.view(len(projected), parts, self.heads, head_dim)

    def _add(self, x: Tensor, mixed: Tensor) -> Tensor:
        x = x + self.dropout(self.attention_out(mixed.flatten(1)))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class SwiGLU(nn.Module):
    """Feed-forward in which one half gates the other (Shazeer, arXiv 2002.05202)."""

    def __init__(self, dim: int, width: int, dropout: float) -> None:
        super().__init__()
        self.into = nn.Linear(dim, 2 * width)
        self.dropout = Dropout(dropout)
        self.out = nn.Linear(width, dim)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.into(x).chunk(2, dim=-1)
        out: Tensor = self.out(self.dropout(value * silu(gate)))
        return out


class Rotary(nn.Module):
    """Turns queries and keys by their position, so that a score knows how far apart they are.

    Su et al., arXiv 2104.09864. Nothing is learnt, and a window cut off at its old end scores as
    it did before.

    Args:
        head_dim: even; entries ``i`` and ``i + head_dim / 2`` turn together.
        max_length: positions.
    """

    def __init__(self, head_dim: int, max_length: int) -> None:
        super().__init__()
        speed = _SLOWEST ** -torch.linspace(0, 1, head_dim // 2 + 1)[:-1]
        angle = torch.arange(max_length)[:, None] * speed
        self.register_buffer("cos", angle.cos().repeat(1, 2), persistent=False)
        self.register_buffer("sin", angle.sin().repeat(1, 2), persistent=False)
        self.cos: Tensor
        self.sin: Tensor

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """``(rows, parts, heads, head_dim)``, and ``(rows,)`` positions, to the same turned."""
        first, second = x.chunk(2, dim=-1)
        cos, sin = (table[position][:, None, None].to(x.dtype) for table in (self.cos, self.sin))
        return x * cos + torch.cat([-second, first], dim=-1) * sin
