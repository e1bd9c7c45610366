"""Ranking metrics for next-item prediction, one target per sequence.

Axes: ``batch`` sequences; ``items`` = catalogue_size + 1, where index 0 is padding.
Every function gives one value in [0, 1] per sequence; averaging is the caller's choice, and
``RankingMetrics`` makes it.

The whole catalogue is ranked, never a sample of it: sampled metrics reorder models (Krichene &
Rendle, KDD 2020, doi 10.1145/3394486.3403226).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

CUTOFFS = (5, 10, 20, 100)
COVERAGE_CUTOFF = 10

#: The rank of a target that cannot be recommended at all.
NEVER = torch.iinfo(torch.int64).max


def target_rank(scores: Tensor, target: Tensor) -> Tensor:
    """Rank of each target within the whole catalogue; 1 is best.

    A tie counts against the target, so a constant model ranks last, not first. A target that the
    protocol itself excludes (score ``-inf``: heard before, under ``seen=drop``) is a miss at any
    cutoff, however small the catalogue: its rank is ``NEVER``.

    Args:
        scores: ``(batch, items)`` float, higher is better. Padding, and
            whatever the protocol excludes, is ``-inf``.
        target: ``(batch,)`` int64 item index.

    Returns:
        ``(batch,)`` int64.

    Raises:
        ValueError: if a score is NaN, which no comparison would notice.
    """
    # A sum is NaN if any score is, and cheaper to look at than every score. Infinities of both
    # signs would make it NaN too, but +inf is no score either.
    if scores.sum(dim=1).isnan().any() and scores.isnan().any():
        raise ValueError("scores contain NaN; the ranking would be meaningless")
    of_target = scores.gather(1, target[:, None])
    rank = (scores >= of_target).sum(dim=1)
    return torch.where(of_target[:, 0].isneginf(), NEVER, rank)


def ndcg(rank: Tensor, k: int) -> Tensor:
    """NDCG@k. With one target the ideal DCG is 1, so this is 1 / log2(rank + 1).

    >>> ndcg(torch.tensor([1, 3, 11]), k=10)
    tensor([1.0000, 0.5000, 0.0000])
    """
    return torch.where(rank <= k, 1 / torch.log2(rank + 1.0), 0.0)


def hit_rate(rank: Tensor, k: int) -> Tensor:
    """1 where the target is among the first k, else 0. Equals recall@k with one target.

    >>> hit_rate(torch.tensor([1, 10, 11]), k=10)
    tensor([1., 1., 0.])
    """
    return (rank <= k).to(torch.get_default_dtype())


def reciprocal_rank(rank: Tensor) -> Tensor:
    """1 / rank; its mean over sequences is MRR.

    >>> reciprocal_rank(torch.tensor([1, 4]))
    tensor([1.0000, 0.2500])
    """
    return 1.0 / rank


class RankingMetrics(Metric):
    """Means over all targets, and over repeats and explorations apart.

    A *repeat* target is in the listener's history, an *explore* target is not. ``compute`` gives
    a dict with ``ndcg_{k}``, ``hit_rate_{k}``, ``mrr`` over all targets and the same under
    ``repeat/`` and ``explore/`` (absent where there is no such target), ``coverage_10`` (share of
    the catalogue that stands in at least one top ten; among ties whichever come first) and
    ``repeat_share``.

    The ranks themselves are kept (8 bytes a target): means are then exact in float64 whatever
    the batch size, and two models can be compared target by target (``ranks``).
    """

    full_state_update = False
    ranks: list[Tensor]
    repeats: list[Tensor]
    recommended: Tensor

    def __init__(self, catalogue_size: int, cutoffs: Sequence[int] = CUTOFFS) -> None:
        super().__init__()
        self.cutoffs = tuple(cutoffs)
        self.catalogue_size = catalogue_size
        self.add_state("ranks", default=[], dist_reduce_fx="cat")
        self.add_state("repeats", default=[], dist_reduce_fx="cat")
        self.add_state(
            "recommended",
            default=torch.zeros(catalogue_size + 1, dtype=torch.uint8),
            dist_reduce_fx="max",
        )

    def update(self, scores: Tensor, target: Tensor, is_repeat: Tensor) -> None:
        """Rank a batch.

        Args:
            scores: ``(batch, items)`` as in ``target_rank``.
            target: ``(batch,)`` int64.
            is_repeat: ``(batch,)`` bool, target already in the listener's history.
        """
        self.ranks.append(target_rank(scores, target))
        self.repeats.append(is_repeat)
        top = scores.topk(min(COVERAGE_CUTOFF, self.catalogue_size), dim=1)
        self.recommended[top.indices[~top.values.isneginf()]] = 1

    def compute(self) -> dict[str, float]:
        # On the CPU: the means are in float64, which not every accelerator has.
        ranks, repeats = dim_zero_cat(self.ranks).cpu(), dim_zero_cat(self.repeats).cpu()
        values = means(ranks, repeats, self.cutoffs)
        covered = int(self.recommended.sum())
        return {**values, f"coverage_{COVERAGE_CUTOFF}": covered / self.catalogue_size}


def metric_names(cutoffs: Sequence[int] = CUTOFFS) -> list[str]:
    """Every name that ``RankingMetrics.compute`` may give."""
    of_group = ["mrr", *(f"{metric}_{k}" for metric in ("ndcg", "hit_rate") for k in cutoffs)]
    grouped = [group + name for group in ("", "repeat/", "explore/") for name in of_group]
    return [*grouped, f"coverage_{COVERAGE_CUTOFF}", "repeat_share"]


def means(ranks: Tensor, repeats: Tensor, cutoffs: Sequence[int] = CUTOFFS) -> dict[str, float]:
    """Every metric over all targets, over repeats and over explorations, by name.

    Args:
        ranks: ``(targets,)`` int64.
        repeats: ``(targets,)`` bool.
    """
    values = _means(ranks, cutoffs)
    for name, chosen in (("repeat/", repeats), ("explore/", ~repeats)):
        if chosen.any():
            of_chosen = _means(ranks[chosen], cutoffs)
            values |= {name + key: value for key, value in of_chosen.items()}
    return {**values, "repeat_share": repeats.double().mean().item()}


def _means(ranks: Tensor, cutoffs: Sequence[int]) -> dict[str, float]:
    ranks = ranks.double()
    values = {"mrr": reciprocal_rank(ranks).mean().item()}
    for k in cutoffs:
        values[f"ndcg_{k}"] = ndcg(ranks, k).mean().item()
        values[f"hit_rate_{k}"] = hit_rate(ranks, k).double().mean().item()
    return values
