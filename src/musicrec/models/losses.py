"""Losses for next-item prediction: what to push up, and against what.

Every loss is called as ``loss(hidden, target, item_embedding)`` and returns the **sum** over
tokens, so that whoever averages (over a batch, over ranks) does it by the true number of tokens.

Axes: ``tokens`` positions that have a target, padding already left out; ``items`` =
catalogue_size + 1 rows of the item embedding, row 0 padding, never a target nor a negative.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from musicrec.errors import ConfigError


class FullCrossEntropy(nn.Module):
    """Softmax cross-entropy against the whole catalogue; needs no sampling and no correction.

    Args:
        chunk_tokens: tokens scored at once. Memory is ``chunk_tokens * catalogue_size`` floats;
            the ``(tokens, items)`` matrix of the whole batch is never held.
    """

    def __init__(self, chunk_tokens: int = 512) -> None:
        super().__init__()
        _check_positive(chunk_tokens=chunk_tokens)
        self.chunk_tokens = chunk_tokens

    def forward(self, hidden: Tensor, target: Tensor, item_embedding: Tensor) -> Tensor:
        loss: Tensor = _ChunkedCrossEntropy.apply(  # type: ignore[no-untyped-call]
            # Not in autocast's bfloat16: the products below are outside its reach.
            hidden.to(item_embedding.dtype),
            item_embedding,
            target,
            self.chunk_tokens,
        )
        return loss


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Linear and cross-entropy in one, chunk by chunk, the gradient built on the way forward.

    Once a chunk's logits are there, their gradient (softmax - one-hot) is one pass away; building
    it at once saves scoring every chunk again in ``backward`` and keeps memory at one chunk. The
    idea is Liger Kernel's fused linear cross-entropy (arXiv 2410.10989).
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, target: Tensor, chunk_tokens: int
    ) -> Tensor:
        hidden_gradient, weight_gradient = torch.empty_like(hidden), torch.zeros_like(weight)
        # One buffer for all chunks, worked on in place: a fresh one for each would cost as much
        # in page faults as the matrix product.
        buffer = hidden.new_empty(min(chunk_tokens, len(target)), len(weight))
        total = hidden.new_zeros(())
        for start in range(0, len(target), chunk_tokens):
            chunk = slice(start, start + chunk_tokens)
            wanted = target[chunk, None]
            logits = torch.mm(hidden[chunk], weight.T, out=buffer[: len(wanted)])
            logits[:, 0] = float("-inf")
            highest = logits.amax(dim=1, keepdim=True)
            total -= (logits.gather(1, wanted) - highest).sum()
            sums = logits.sub_(highest).exp_().sum(dim=1, keepdim=True)
            total += sums.log().sum()
            gradient = logits.div_(sums)
            gradient.scatter_add_(1, wanted, gradient.new_full(wanted.shape, -1.0))
            torch.mm(gradient, weight, out=hidden_gradient[chunk])
            weight_gradient.addmm_(gradient.T, hidden[chunk])
        ctx.save_for_backward(hidden_gradient, weight_gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (upstream,) = outputs
        hidden_gradient, weight_gradient = ctx.saved_tensors
        return hidden_gradient * upstream, weight_gradient * upstream, None, None


class SampledSoftmax(nn.Module):
    """Softmax cross-entropy against the target and a uniform sample of the catalogue.

    One draw of negatives is shared by all tokens of the batch, so the cost does not grow with the
    catalogue. The sampled part of the normaliser is scaled up by ``items / negatives`` (the logQ
    correction of Bengio & Senécal for a uniform proposal), so its expectation is the full one.
    A negative that happens to be a token's own target is left out for that token.
    """

    def __init__(self, num_negatives: int = 256) -> None:
        super().__init__()
        _check_positive(num_negatives=num_negatives)
        self.num_negatives = num_negatives

    def forward(self, hidden: Tensor, target: Tensor, item_embedding: Tensor) -> Tensor:
        catalogue_size = len(item_embedding) - 1
        positive = _score_each(hidden, item_embedding, target)
        negatives = _uniform_items((self.num_negatives,), catalogue_size, target)
        correction = math.log(catalogue_size / self.num_negatives)
        negative = hidden @ item_embedding[negatives].T + correction
        negative = negative.masked_fill(target[:, None] == negatives, float("-inf"))
        return (torch.cat([positive, negative], dim=1).logsumexp(dim=1) - positive[:, 0]).sum()


class BCE(nn.Module):
    """The paper's loss: binary cross-entropy, target against one uniform negative per position.

    As published a negative is never the target itself; unlike there it may be another item of the
    listener's history, which on a catalogue of thousands makes no difference one can measure.
    """

    def forward(self, hidden: Tensor, target: Tensor, item_embedding: Tensor) -> Tensor:
        catalogue_size = len(item_embedding) - 1
        if catalogue_size < 2:
            raise ConfigError("loss=bce needs a negative, and the catalogue holds one track only")
        # One of the other catalogue_size - 1 items: step over the target.
        negative = _uniform_items(target.shape, catalogue_size - 1, target)
        negative = negative + (negative >= target)
        positive_score = _score_each(hidden, item_embedding, target)
        negative_score = _score_each(hidden, item_embedding, negative)
        return -(logsigmoid(positive_score) + logsigmoid(-negative_score)).sum()


class GBCE(nn.Module):
    """Generalised BCE of gSASRec (Petrov & Macdonald, arXiv 2308.07192).

    With many negatives BCE overestimates the positive's probability; raising it to the power
    ``beta`` undoes that by the share ``t``: 0 is plain BCE, 1 is fully calibrated. Departure: the
    negatives are drawn once for the batch instead of once per position, which turns a gather of
    ``tokens * negatives * dim`` floats into one matrix product.
    """

    def __init__(self, num_negatives: int = 256, t: float = 0.75) -> None:
        super().__init__()
        _check_positive(num_negatives=num_negatives)
        if not 0 <= t <= 1:
            raise ConfigError(f"loss.t={t} must lie between 0 (plain BCE) and 1 (calibrated)")
        self.num_negatives = num_negatives
        self.t = t

    def forward(self, hidden: Tensor, target: Tensor, item_embedding: Tensor) -> Tensor:
        catalogue_size = len(item_embedding) - 1
        sampling_rate = min(self.num_negatives / max(catalogue_size - 1, 1), 1.0)
        beta = sampling_rate * (self.t * (1 - 1 / sampling_rate) + 1 / sampling_rate)
        positive = _score_each(hidden, item_embedding, target)
        negatives = _uniform_items((self.num_negatives,), catalogue_size, target)
        negative = hidden @ item_embedding[negatives].T
        against = binary_cross_entropy_with_logits(
            negative,
            torch.zeros_like(negative),
            weight=(target[:, None] != negatives).to(negative.dtype),
            reduction="sum",
        )
        return (against - beta * logsigmoid(positive).sum()) / (self.num_negatives + 1)


def _score_each(hidden: Tensor, item_embedding: Tensor, items: Tensor) -> Tensor:
    """``(tokens, 1)`` score of one item per token."""
    return (hidden * item_embedding[items]).sum(dim=1, keepdim=True)


def _uniform_items(shape: tuple[int, ...] | torch.Size, highest: int, like: Tensor) -> Tensor:
    """Item indices 1..highest, drawn from torch's global generator on the device of ``like``."""
    return torch.randint(1, highest + 1, tuple(shape), device=like.device)


def _check_positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ConfigError(f"loss.{name}={value} must be at least 1")
