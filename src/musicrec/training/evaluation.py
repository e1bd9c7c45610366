"""Ranking the full catalogue for every target, with one protocol for models and baselines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from musicrec.errors import ConfigError
from musicrec.interactions.sequence import Sequences, spans
from musicrec.interactions.split import Targets
from musicrec.metrics.ranking import RankingMetrics

Seen = Literal["keep", "drop"]


class Questions(NamedTuple):
    """A batch of targets and everything their listeners played before.

    Axes: ``batch`` targets; ``interactions`` of all their histories, one after the other.
    """

    history: Tensor
    """``(interactions,)`` int64 items, oldest first within a target."""
    lengths: Tensor
    """``(batch,)`` int64 interactions before each target, at least 1."""
    target: Tensor
    """``(batch,)`` int64 item."""

    def to(self, device: torch.device | str) -> Questions:
        return Questions(*(tensor.to(device) for tensor in self))

    @property
    def row(self) -> Tensor:
        """``(interactions,)`` which target an interaction belongs to."""
        return torch.repeat_interleave(
            torch.arange(len(self.lengths), device=self.lengths.device), self.lengths
        )

    def newest(self, length: int) -> Tensor:
        """``(batch, length)`` the newest items of each history, left-padded, cut to the longest."""
        length = min(length, int(self.lengths.max()))
        column = torch.arange(length, device=self.lengths.device) - length
        place = self.lengths.cumsum(0)[:, None] + column
        exists = column + self.lengths[:, None] >= 0
        return torch.where(exists, self.history[place.clamp(min=0)], 0)


def repeats(questions: Questions) -> Tensor:
    """``(batch,)`` bool: the target stands in its own history."""
    row = questions.row
    same = questions.history == questions.target[row]
    return torch.zeros_like(questions.target).index_add_(0, row, same.long()) > 0


def exclude_heard(scores: Tensor, questions: Questions) -> Tensor:
    """``scores`` with everything in each history at ``-inf``, in place."""
    scores[questions.row, questions.history] = float("-inf")
    return scores


class QuestionDataset(Dataset[Questions]):
    """Targets in batches; an item is a whole batch.

    Batches hold targets of like history length, so little of a model's work is padding; no metric
    depends on their order.

    Args:
        sequences: the interactions.
        targets: what to ask.
        batch_size: targets per batch; with the catalogue size it bounds memory.
        rank, world_size: this process among those that evaluate together; they share the targets
            out without overlap.
    """

    def __init__(
        self,
        sequences: Sequences,
        targets: Targets,
        *,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.sequences = sequences
        self.targets = targets
        self.batch_size = batch_size
        self.order = np.argsort(targets.positions, kind="stable")[rank::world_size]

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch_size)

    def __getitem__(self, batch: int) -> Questions:
        if not 0 <= batch < len(self):
            raise IndexError(batch)
        chosen = self.order[batch * self.batch_size : (batch + 1) * self.batch_size]
        starts = self.sequences.offsets[self.targets.listeners[chosen]]
        lengths = self.targets.positions[chosen]
        items = self.sequences.items
        return Questions(
            torch.from_numpy(items[spans(starts, lengths)].astype(np.int64)),
            torch.from_numpy(lengths.astype(np.int64)),
            torch.from_numpy(items[starts + lengths].astype(np.int64)),
        )

    def __iter__(self) -> Iterator[Questions]:
        return (self[batch] for batch in range(len(self)))


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one recommender reached on one set of targets.

    ``values`` as ``RankingMetrics.compute`` names them; ``ranks`` ``(targets,)`` in the order of
    the questions, so that two judgements of the same questions can be compared in pairs.
    """

    values: dict[str, float]
    ranks: Tensor


def judge(
    score: Callable[[Questions], Tensor],
    questions: QuestionDataset,
    *,
    seen: Seen,
    catalogue_size: int,
) -> Judgement:
    """Rank the full catalogue for every target.

    Args:
        score: gives ``(batch, catalogue_size + 1)`` scores, padding at ``-inf``; may be altered.
        questions: the targets.
        seen: ``keep`` ranks everything (music is replayed); ``drop`` takes what the listener
            heard before the target out of the ranking (films are not).
    """
    metrics = RankingMetrics(catalogue_size)
    for batch in questions:
        update(metrics, score(batch), batch, seen)
    return Judgement(metrics.compute(), torch.cat(metrics.ranks))


def update(metrics: RankingMetrics, scores: Tensor, questions: Questions, seen: Seen) -> None:
    """Rank one batch by the protocol; the one place where ``seen`` is applied."""
    if seen == "drop":
        scores = exclude_heard(scores, questions)
    metrics.update(scores, questions.target, repeats(questions))


def check_seen(seen: str) -> Seen:
    """``seen`` as given at the door, or a clear error."""
    if seen == "keep":
        return "keep"
    if seen == "drop":
        return "drop"
    raise ConfigError(f"seen={seen!r} is not one of keep (rank heard tracks too), drop")
