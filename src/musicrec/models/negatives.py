"""Negatives shared by a batch: which items stand for the whole catalogue, and for how much of it.

Axes: ``items`` = catalogue_size + 1, index 0 padding; ``negatives`` the distinct items of one draw.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from musicrec.errors import ConfigError, DataError


class Negatives(NamedTuple):
    """Distinct items, rising, and what each one's logit needs to stand for the catalogue.

    ``items`` is ``(negatives,)`` int64. ``correction`` is ``(negatives,)`` float32, ``log(times
    drawn) - log(times expected)``: with it added to the logits, the sum of their exponentials is in
    expectation the sum over the whole catalogue.
    """

    items: Tensor
    correction: Tensor

    def to(self, device: torch.device) -> Negatives:
        return Negatives(self.items.to(device), self.correction.to(device))

    def mask(self, logits: Tensor, target: Tensor) -> Tensor:
        """Take each token's own target out of ``(tokens, negatives)`` logits, in place.

        By a logit low enough for an exponential of 0, and not by ``-inf``: a row of nothing else
        would have no gradient but NaN.
        """
        wanted = target[:, None]
        column = torch.searchsorted(self.items, wanted).clamp_(max=len(self.items) - 1)
        is_negative = self.items[column] == wanted
        lower = is_negative.to(logits.dtype).mul_(torch.finfo(logits.dtype).min / 2)
        return logits.scatter_add_(1, column, lower)


class Proposal:
    """Where negatives come from: a share drawn uniformly, the rest as often as items are played.

    ``q(i) = uniform_share / catalogue_size + (1 - uniform_share) * plays(i) / all plays``. Uniform
    draws alone say little about the popular items that make up most of the normaliser; plays alone
    would never draw an item without any.

    A draw takes one point from each of ``num_negatives`` equal stretches of the cumulative ``q``
    (stratified sampling): the expected count of an item is ``num_negatives * q(i)`` as with
    independent draws, with less variance, and the items come out sorted. Time is
    ``O(num_negatives * log(catalogue_size))``, memory 8 bytes an item.

    Tables and draws stay on the CPU, on torch's global generator: every device sees the same
    negatives, and only they travel.

    Args:
        play_counts: ``(items,)``, plays of each item to learn from; that of padding counts nothing.
            Never plays of validation or test.
        uniform_share: above 0, at most 1.

    Raises:
        ConfigError: ``uniform_share`` lies outside.
        DataError: there is no item, or no play to go by.
    """

    def __init__(self, play_counts: Tensor, uniform_share: float) -> None:
        if not 0 < uniform_share <= 1:
            raise ConfigError(
                f"loss.uniform_share={uniform_share} must be above 0 (or an item without plays "
                "could never be a negative) and at most 1"
            )
        plays = play_counts.double().cpu()
        plays[0] = 0
        catalogue_size, total = len(plays) - 1, plays.sum()
        if catalogue_size < 1 or not total > 0:
            raise DataError("loss=sampled has no plays to draw negatives by; import more listens")
        mass = plays.mul_((1 - uniform_share) / total).add_(uniform_share / catalogue_size)
        mass[0] = 0
        self.cumulative = mass.cumsum(0)
        """``(items,)`` float64, rising from 0 to 1."""

    @property
    def catalogue_size(self) -> int:
        return len(self.cumulative) - 1

    def draw(self, num_negatives: int) -> Negatives:
        """``num_negatives`` draws, each distinct item once; random by torch's global generator."""
        stretch = torch.arange(num_negatives, dtype=torch.float64)
        points = (stretch + torch.rand(num_negatives, dtype=torch.float64)) / num_negatives
        drawn = torch.searchsorted(self.cumulative, points, right=True)
        # Rounding may leave the last of cumulative a hair below the last point.
        items, counts = torch.unique_consecutive(
            drawn.clamp_(max=self.catalogue_size), return_counts=True
        )
        expected = num_negatives * (self.cumulative[items] - self.cumulative[items - 1])
        return Negatives(items, (counts / expected).log().float())
