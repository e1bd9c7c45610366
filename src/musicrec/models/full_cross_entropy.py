"""Softmax cross-entropy against the whole catalogue, in one pass over the scores.

Called like every loss (``musicrec.models.losses``): ``loss(hidden, target, item_embedding,
biases)``, the **sum** over tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import normalize, pad

from musicrec.errors import ConfigError
from musicrec.models.biases import Biases

#: Scores held at once, in MB, by kind of device: what a CPU's cache holds, and what keeps an
#: accelerator's kernels large.
_CHUNK_MB = {"cpu": 16}
_CHUNK_MB_ELSEWHERE = 512

#: Matrix units work in tiles; a catalogue that is no multiple of this leaves some half empty.
_TILE = 16


class FullCrossEntropy(nn.Module):
    """Needs no sampling and no correction.

    On a GPU the three matrix products are in the precision that ``hidden`` comes in (bfloat16
    under autocast); the softmax and all sums are float32. A target whose probability is below
    float32's smallest counts as 87.3 nats; its gradient is right.

    Args:
        chunk_mb: memory for scores, in 10⁶ bytes; the ``(tokens, items)`` matrix of the whole
            batch is never held. None: 16 on a CPU, 512 on an accelerator.
    """

    def __init__(self, chunk_mb: float | None = None) -> None:
        super().__init__()
        if chunk_mb is not None and chunk_mb <= 0:
            raise ConfigError(f"loss.chunk_mb={chunk_mb} must be above 0")
        self.chunk_mb = chunk_mb

    def forward(
        self,
        hidden: Tensor,
        target: Tensor,
        item_embedding: Tensor,
        biases: Biases | None = None,
        *,
        is_cosine: bool = False,
    ) -> Tensor:
        """Sum over tokens.

        Args:
            hidden: ``(tokens, dim)``.
            target: ``(tokens,)`` int64, at least 1.
            item_embedding: ``(items, dim)``.
            biases: what is added to some scores.
            is_cosine: only the direction of an item's embedding counts.
        """
        if is_cosine:
            item_embedding = normalize(item_embedding, dim=1)
        device = hidden.device.type
        chunk_mb = self.chunk_mb or _CHUNK_MB.get(device, _CHUNK_MB_ELSEWHERE)
        chunk_tokens = max(int(chunk_mb * 1e6) // (4 * len(item_embedding)), 1)
        if device == "cpu":  # where narrow types only cost
            hidden = hidden.to(item_embedding.dtype)
        loss: Tensor = _ChunkedCrossEntropy.apply(  # type: ignore[no-untyped-call]
            hidden, item_embedding, target, chunk_tokens, *(biases or (None, None))
        )
        return loss


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Linear and cross-entropy in one, chunk by chunk, the gradient built on the way forward.

    Once a chunk's scores are there, their gradient (softmax - one-hot) is one pass away; building
    it at once saves scoring every chunk again in ``backward`` and keeps memory at one chunk. The
    idea is Liger Kernel's fused linear cross-entropy (arXiv 2410.10989).
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        item_embedding: Tensor,
        target: Tensor,
        chunk_tokens: int,
        biased: Tensor | None,
        bias: Tensor | None,
    ) -> Tensor:
        items = len(item_embedding)
        weight = pad(item_embedding.to(hidden.dtype), (0, 0, 0, -items % _TILE))
        hidden_gradient = torch.empty_like(hidden)
        weight_gradient = torch.zeros_like(weight, dtype=item_embedding.dtype)
        # One buffer for all chunks, worked on in place: a fresh one for each would cost as much
        # in page faults as the matrix product.
        buffer = item_embedding.new_empty(min(chunk_tokens, len(target)), len(weight))
        bias_gradient = None if bias is None else torch.empty_like(bias)
        total = item_embedding.new_zeros(())
        smallest = torch.finfo(buffer.dtype).tiny
        for start in range(0, len(target), chunk_tokens):
            chunk = slice(start, start + chunk_tokens)
            wanted = target[chunk, None]
            scores = _product(hidden[chunk], weight.T, buffer[: len(wanted)])
            if biased is not None and bias is not None:
                Biases(biased[chunk], bias[chunk]).add_to(scores)
            scores[:, 0] = float("-inf")
            scores[:, items:] = float("-inf")
            share = torch.softmax(scores, dim=1, out=scores)
            total -= share.gather(1, wanted).clamp_(min=smallest).log_().sum()
            gradient = share.scatter_add_(1, wanted, share.new_full(wanted.shape, -1.0))
            if biased is not None and bias_gradient is not None:
                bias_gradient[chunk] = gradient.gather(1, biased[chunk])
            gradient = gradient.to(hidden.dtype)
            torch.mm(gradient, weight, out=hidden_gradient[chunk])
            _add_product(weight_gradient, gradient.T, hidden[chunk])
        ctx.save_for_backward(hidden_gradient, weight_gradient[:items], bias_gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        (upstream,) = outputs
        of_hidden, of_weight, of_bias = (
            None if gradient is None else gradient * upstream.to(gradient.dtype)
            for gradient in ctx.saved_tensors
        )
        return of_hidden, of_weight, None, None, None, of_bias


def _product(left: Tensor, right: Tensor, out: Tensor) -> Tensor:
    """``left @ right`` into ``out``, which may be of a wider type than the factors."""
    if left.dtype == out.dtype:
        return torch.mm(left, right, out=out)
    return torch.mm(left, right, out_dtype=out.dtype, out=out)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """``total += left @ right``; ``total`` may be of a wider type than the factors."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total += torch.mm(left, right, out_dtype=total.dtype)
