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
from musicrec.interactions.sequence import IntArray, Sequences, spans
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

    def newest(self, length: int) -> tuple[Tensor, Tensor]:
        """The newest ``length`` items of each history: flat as ``history``, and their lengths."""
        place = torch.arange(len(self.history), device=self.history.device)
        to_come = self.lengths.cumsum(0)[self.row] - place
        return self.history[to_come <= length], self.lengths.clamp(max=length)


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

    Batches hold targets of like history length, so little of a model's work is padding, and as
    many as the memory allows; no metric depends on either. The longest histories come first.

    Args:
        sequences: the interactions.
        targets: what to ask.
        memory_mb: what ranking one batch may take, in 10⁶ bytes, by ``_bytes_of``; a batch holds
            one target at least.
        max_length, dim: the model's, on which that depends.
        rank, world_size: this process among those that evaluate together; they share the targets
            out without overlap.
    """

    def __init__(
        self,
        sequences: Sequences,
        targets: Targets,
        *,
        memory_mb: float,
        max_length: int,
        dim: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.sequences = sequences
        self.targets = targets
        self.order = np.argsort(-targets.positions, kind="stable")[rank::world_size]
        cost = _bytes_of(targets.positions[self.order], sequences.catalogue_size, max_length, dim)
        self._bounds = _cuts(cost, int(memory_mb * 1e6))

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def chosen(self, batch: int) -> IntArray:
        """``(batch,)`` which of the targets a batch asks for."""
        return self.order[self._bounds[batch] : self._bounds[batch + 1]]

    def __getitem__(self, batch: int) -> Questions:
        if not 0 <= batch < len(self):
            raise IndexError(batch)
        chosen = self.chosen(batch)
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


def _bytes_of(positions: IntArray, catalogue_size: int, max_length: int, dim: int) -> IntArray:
    """``(targets,)`` bytes that ranking each takes at its height.

    A score of 8 bytes (a baseline's; a model's has 4) and its comparison for every item; 16 rows
    of ``dim`` floats for every interaction the model reads; 16 whole numbers for every interaction
    of the history, which the baselines sort and ``seen`` looks up.
    """
    read = np.minimum(positions, max_length)
    return 10 * (catalogue_size + 1) + 64 * dim * read + 128 * positions


def _cuts(cost: IntArray, budget: int) -> list[int]:
    """Where to cut so that each piece costs no more than ``budget``, or is one alone; ends too."""
    total = np.concatenate([[0], np.cumsum(cost)])
    cuts = [0]
    while cuts[-1] < len(cost):
        past = int(np.searchsorted(total, total[cuts[-1]] + budget, side="right")) - 1
        cuts.append(max(past, cuts[-1] + 1))
    return cuts


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
    device: torch.device | str = "cpu",
) -> Judgement:
    """Rank the full catalogue for every target.

    Args:
        score: gives ``(batch, catalogue_size + 1)`` scores, padding at ``-inf``; may be altered.
        questions: the targets.
        seen: ``keep`` ranks everything (music is replayed); ``drop`` takes what the listener
            heard before the target out of the ranking (films are not).
        device: where ``score`` is asked and its answers are ranked.
    """
    metrics = RankingMetrics(questions.sequences.catalogue_size).to(device)
    # Where several trained together, rank 0 judges alone: nobody is there to gather with.
    metrics.distributed_available_fn = lambda: False
    for batch in questions:
        asked = batch.to(device)
        update(metrics, score(asked), asked, seen)
    return Judgement(metrics.compute(), torch.cat(metrics.ranks).cpu())


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
