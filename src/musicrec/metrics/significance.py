"""How far a difference between two models can be trusted."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Interval(NamedTuple):
    """A mean with its 95 % confidence interval."""

    mean: float
    low: float
    high: float


def mean_interval(values: Tensor) -> Interval | None:
    """95 % interval of the mean of one value per target, by the normal approximation.

    None below two values, which say nothing of their spread.

    For a paired comparison of two models pass the differences target by target: what is hard for
    both cancels out. Listeners are taken as independent.
    """
    values = values.double()
    mean = values.mean().item()
    if len(values) < 2:
        return None
    half = 1.96 * (values.std() / torch.tensor(len(values)).sqrt()).item()
    return Interval(mean, mean - half, mean + half)
