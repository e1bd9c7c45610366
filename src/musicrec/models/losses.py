"""Losses for next-item prediction: what to push up, and against what.

Every loss is called as ``loss(hidden, target, item_embedding, biases)`` and returns the **sum**
over tokens, so that whoever averages (over a batch, over ranks) does it by the true number of
tokens. An item's score is ``hidden @ item_embedding[item]`` and what ``biases`` add to it; with
``is_cosine`` the item's row is brought to length 1 before.

Axes: ``tokens`` positions that have a target, padding already left out; ``items`` =
catalogue_size + 1 rows of the item embedding, row 0 padding, never a target nor a negative.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.functional import (
    binary_cross_entropy_with_logits,
    embedding,
    logsigmoid,
    normalize,
)

from musicrec.errors import ConfigError
from musicrec.models.biases import Biases
from musicrec.models.negatives import Proposal


class SampledSoftmax(nn.Module):
    """Softmax cross-entropy against the target and a sample of the catalogue: an estimate of full.

    One draw of negatives is shared by all tokens of the batch, so a step costs the same whatever
    the catalogue. The full loss of a token with target ``y`` is ``log(exp(s_y) + rest) - s_y``,
    ``rest`` the sum of ``exp(s_i)`` over all other items. Only ``rest`` is sampled: an item drawn
    ``n`` times where ``E[n]`` were expected stands for ``n / E[n] * exp(s_i)``, that is, its logit
    is raised by ``log(n) - log(E[n])`` (the logQ correction), which makes the sum unbiased for any
    proposal that can draw every item. The target is in the sum with certainty, so its own logit
    is not corrected (arXiv 2507.09331 argues the same against the older habit of correcting
    both), and a draw that hits it is left out for that token, or it would count twice.

    The gradient of ``item_embedding`` is sparse: it holds the rows of targets and negatives only.

    Args:
        num_negatives: draws a step; as many items or, where one is drawn twice, fewer.
        uniform_share: of the draws; the others follow the plays (``Proposal``).
    """

    def __init__(self, num_negatives: int = 256, uniform_share: float = 0.5) -> None:
        super().__init__()
        _check_positive(num_negatives=num_negatives)
        self.num_negatives = num_negatives
        self.uniform_share = uniform_share
        self.proposal: Proposal | None = None

    def propose(self, play_counts: Tensor) -> Self:
        """Draw negatives by these plays of the training part, ``(catalogue_size + 1,)``."""
        self.proposal = Proposal(play_counts, self.uniform_share)
        return self

    def forward(
        self,
        hidden: Tensor,
        target: Tensor,
        item_embedding: Tensor,
        biases: Biases | None = None,
        *,
        is_cosine: bool = False,
    ) -> Tensor:
        if self.proposal is None:
            raise ValueError("SampledSoftmax draws by plays: call propose(play_counts) first")
        negatives = self.proposal.draw(self.num_negatives).to(hidden.device)
        # Not in autocast's bfloat16: it would round the correction away.
        with torch.autocast(hidden.device.type, enabled=False):
            hidden = hidden.to(item_embedding.dtype)
            targets = _rows(item_embedding, target, is_cosine, sparse=True)
            others = _rows(item_embedding, negatives.items, is_cosine, sparse=True)
            positive_logit = (hidden * targets).sum(dim=1)
            negative_logits = hidden @ others.T + negatives.correction
            if biases is not None:
                positive_logit = positive_logit + biases.of(target)
                negative_logits = biases.add_to_some(negative_logits, negatives.items)
        rest = negatives.mask(negative_logits, target).logsumexp(dim=1)
        return (torch.logaddexp(positive_logit, rest) - positive_logit).sum()


class BCE(nn.Module):
    """The paper's loss: binary cross-entropy, target against one uniform negative per position.

    As published a negative is never the target itself; unlike there it may be another item of the
    listener's history, which on a catalogue of thousands makes no difference one can measure.
    """

    def forward(
        self,
        hidden: Tensor,
        target: Tensor,
        item_embedding: Tensor,
        biases: Biases | None = None,
        *,
        is_cosine: bool = False,
    ) -> Tensor:
        catalogue_size = len(item_embedding) - 1
        if catalogue_size < 2:
            raise ConfigError("loss=bce needs a negative, and the catalogue holds one track only")
        # One of the other catalogue_size - 1 items: step over the target.
        negative = _uniform_items(target.shape, catalogue_size - 1, target)
        negative = negative + (negative >= target)
        positive_score = _score_each(hidden, item_embedding, target, biases, is_cosine)
        negative_score = _score_each(hidden, item_embedding, negative, biases, is_cosine)
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

    def forward(
        self,
        hidden: Tensor,
        target: Tensor,
        item_embedding: Tensor,
        biases: Biases | None = None,
        *,
        is_cosine: bool = False,
    ) -> Tensor:
        catalogue_size = len(item_embedding) - 1
        sampling_rate = min(self.num_negatives / max(catalogue_size - 1, 1), 1.0)
        beta = sampling_rate * (self.t * (1 - 1 / sampling_rate) + 1 / sampling_rate)
        positive = _score_each(hidden, item_embedding, target, biases, is_cosine)
        drawn = _uniform_items((self.num_negatives,), catalogue_size, target)
        negatives, times = torch.unique(drawn, return_counts=True)
        negative = hidden @ _rows(item_embedding, negatives, is_cosine).T
        if biases is not None:
            negative = biases.add_to_some(negative, negatives)
        against = binary_cross_entropy_with_logits(
            negative,
            torch.zeros_like(negative),
            weight=(target[:, None] != negatives) * times.to(negative.dtype),
            reduction="sum",
        )
        return (against - beta * logsigmoid(positive).sum()) / (self.num_negatives + 1)


def _score_each(
    hidden: Tensor, item_embedding: Tensor, items: Tensor, biases: Biases | None, is_cosine: bool
) -> Tensor:
    """``(tokens,)`` score of one item per token."""
    scores = (hidden * _rows(item_embedding, items, is_cosine)).sum(dim=1)
    return scores if biases is None else scores + biases.of(items)


def _rows(
    item_embedding: Tensor, items: Tensor, is_cosine: bool, *, sparse: bool = False
) -> Tensor:
    """``(items, dim)``; with ``sparse`` so is the gradient of ``item_embedding``."""
    rows = embedding(items, item_embedding, sparse=True) if sparse else item_embedding[items]
    return normalize(rows, dim=1) if is_cosine else rows


def _uniform_items(shape: tuple[int, ...] | torch.Size, highest: int, like: Tensor) -> Tensor:
    """Item indices 1..highest, drawn from torch's global generator on the device of ``like``."""
    return torch.randint(1, highest + 1, tuple(shape), device=like.device)


def _check_positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ConfigError(f"loss.{name}={value} must be at least 1")
