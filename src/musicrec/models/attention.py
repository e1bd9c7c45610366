"""Causal self-attention over the windows of a flat batch.

Axes: ``tokens`` rows of all windows, one window after the other (``layout``); ``heads``;
``head_dim``. Scores are scaled by 1 / sqrt(head_dim).

On an accelerator, and wherever no gradient is asked for, this is torch's
``scaled_dot_product_attention`` group by group. For training on a CPU it is ours: torch's fast
path there has no dropout, and the path that has one holds every score of the batch several times
and draws a float for each.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import scaled_dot_product_attention

from musicrec.models.dropout import kept
from musicrec.models.layout import Group, Layout

#: Queries whose scores are computed at once. A block looks at no key after its last query, so of
#: the half of all scores that causality throws away, many blocks compute little.
_QUERY_BLOCK = 48


def attend(query_key_value: Tensor, layout: Layout, dropout: float) -> Tensor:
    """Each token's mixture of the values of its window up to and with its own.

    Args:
        query_key_value: ``(tokens, 3, heads, head_dim)``.
        dropout: probability that a weight is dropped; 0 when not training.

    Returns:
        ``(tokens, heads, head_dim)``.
    """
    is_trained = torch.is_grad_enabled() and query_key_value.requires_grad
    if query_key_value.device.type == "cpu" and (is_trained or dropout):
        mixed: Tensor = _BlockedAttention.apply(  # type: ignore[no-untyped-call]
            query_key_value, layout, dropout
        )
        return mixed
    parts = [query_key_value.new_empty(0, *query_key_value.shape[2:])]
    for group in layout.groups:
        query, key, value = group.pad(query_key_value).permute(2, 0, 3, 1, 4)
        mixed = scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True)
        parts.append(group.unpad(mixed.transpose(1, 2)))
    return torch.cat(parts)


def attend_newest(query: Tensor, key_value: Tensor, layout: Layout, dropout: float) -> Tensor:
    """As ``attend``, for the newest token of each window only.

    Args:
        query: ``(windows, heads, head_dim)`` of the newest tokens.
        key_value: ``(tokens, 2, heads, head_dim)``.

    Returns:
        ``(windows, heads, head_dim)``.
    """
    parts = [query.new_empty(0, *query.shape[1:])]
    for group in layout.groups:
        key, value = group.pad(key_value).permute(2, 0, 3, 1, 4)
        mask = None
        if group.places is not None:
            lengths = layout.lengths[group.windows].to(query.device)
            column = torch.arange(group.longest, device=query.device)
            mask = (column < lengths[:, None])[:, None, None, :]
        asked = query[group.windows, :, None]
        mixed = scaled_dot_product_attention(asked, key, value, attn_mask=mask, dropout_p=dropout)
        parts.append(mixed[:, :, 0])
    return torch.cat(parts)


class _BlockedAttention(torch.autograd.Function):
    """Attention with dropout, a group and a block of queries at a time.

    Below, ``weights`` are softmax(scores) and ``dropped`` the same after dropout. As in
    FlashAttention (arXiv 2205.14135), the sum that softmax's derivative needs is taken over
    ``head_dim`` of output and upstream gradient, not over the weights.
    """

    @staticmethod
    def forward(ctx: Any, query_key_value: Tensor, layout: Layout, dropout: float) -> Tensor:
        tokens, _, heads, head_dim = query_key_value.shape
        mixed = query_key_value.new_empty(tokens, heads, head_dim)
        ctx.layout, ctx.saved = layout, []
        for group in layout.groups:
            query, key, value = _by_head(query_key_value, group)
            query = query * (1 / math.sqrt(head_dim))
            output = torch.empty_like(query)
            blocks = []
            for start, stop in _query_blocks(group.longest):
                scores = torch.bmm(query[:, start:stop], key[:, :stop].transpose(1, 2))
                scores[:, :, start:] += _future(stop - start, scores.dtype)
                weights = scores.softmax(dim=2)
                dropped = weights
                if dropout:
                    dropped = torch.mul(
                        weights, kept(weights.shape, dropout, weights.dtype), out=scores
                    )
                output[:, start:stop] = torch.bmm(dropped, value[:, :stop])
                blocks.append((weights, dropped))
            mixed[group.rows] = _by_token(output, group, heads)
            ctx.saved.append((query, key, value, output, blocks))
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None, None]:
        (upstream,) = outputs
        tokens, heads, head_dim = upstream.shape
        gradient = upstream.new_empty(tokens, 3, heads, head_dim)
        for group, (query, key, value, output, blocks) in zip(
            ctx.layout.groups, ctx.saved, strict=True
        ):
            (from_above,) = _by_head(upstream[:, None], group)
            correction = (from_above * output).sum(dim=2, keepdim=True)
            of_all = query.new_zeros(3, *query.shape)
            of_query, of_key, of_value = of_all
            for (start, stop), (weights, dropped) in zip(
                _query_blocks(group.longest), blocks, strict=True
            ):
                above = from_above[:, start:stop]
                of_value[:, :stop].baddbmm_(dropped.transpose(1, 2), above)
                of_scores = torch.bmm(above, value[:, :stop].transpose(1, 2)).mul_(dropped)
                of_scores.addcmul_(weights, correction[:, start:stop], value=-1)
                of_query[:, start:stop] = torch.bmm(of_scores, key[:, :stop])
                of_key[:, :stop].baddbmm_(of_scores.transpose(1, 2), query[:, start:stop])
            of_query *= 1 / math.sqrt(head_dim)
            gradient[group.rows] = _by_token(of_all, group, heads)
        return gradient, None, None


def _query_blocks(longest: int) -> list[tuple[int, int]]:
    """First query and the one past the last of each block, about equal in size."""
    count = -(-longest // _QUERY_BLOCK)
    return [(longest * i // count, longest * (i + 1) // count) for i in range(count)]


def _future(queries: int, dtype: torch.dtype) -> Tensor:
    """``(queries, queries)``: -inf where the key is later than the query, else 0."""
    return torch.full((queries, queries), float("-inf"), dtype=dtype).triu(1)


def _by_head(flat: Tensor, group: Group) -> Tensor:
    """``(tokens, parts, heads, head_dim)`` to ``(parts, windows * heads, longest, head_dim)``."""
    _, parts, _, head_dim = flat.shape
    padded = group.pad(flat).permute(2, 0, 3, 1, 4)
    return padded.reshape(parts, -1, group.longest, head_dim)


def _by_token(by_head: Tensor, group: Group, heads: int) -> Tensor:
    """``(..., windows * heads, longest, head_dim)`` back to ``(rows, ..., heads, head_dim)``."""
    *parts, _, longest, head_dim = by_head.shape
    split = by_head.view(*parts, len(group), heads, longest, head_dim)
    return group.unpad(split.movedim((-4, -2), (0, 1)))
