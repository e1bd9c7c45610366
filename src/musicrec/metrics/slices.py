"""A ranking judged on parts of the targets, each with how sure it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from musicrec.metrics.ranking import hit_rate, ndcg
from musicrec.metrics.significance import Interval, mean_interval


class Slice(NamedTuple):
    """What a part of the targets reached.

    Attributes:
        group, name: what the targets are parted by, and which part this is.
        num_targets: at least one.
        ndcg, hit_rate: at 10, with 95 % intervals; of a single target both ends are its value.
    """

    group: str
    name: str
    num_targets: int
    ndcg: Interval
    hit_rate: Interval


def sliced(ranks: Tensor, group: str, parts: Mapping[str, Tensor]) -> list[Slice]:
    """The parts that hold a target, in their order.

    Args:
        ranks: ``(targets,)`` int64.
        group: what they are parted by.
        parts: name -> ``(targets,)`` bool.
    """
    return [
        Slice(
            group,
            name,
            int(chosen.sum()),
            _interval(ndcg(ranks[chosen], 10)),
            _interval(hit_rate(ranks[chosen], 10)),
        )
        for name, chosen in parts.items()
        if chosen.any()
    ]


def _interval(values: Tensor) -> Interval:
    value = values.double().mean().item()
    return mean_interval(values) or Interval(value, value, value)
