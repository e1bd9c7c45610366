"""Training batches as a pure function of (seed, epoch, rank, step).

Nothing here remembers where it is: which windows make a batch follows from the four numbers
alone. So a run killed at any step resumes with exactly the batches it would have had, two ranks
never see the same window, and an epoch costs one permutation of window numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from musicrec.errors import ConfigError
from musicrec.interactions.sequence import IntArray, Sequences, spans

Which = Literal["all", "newest"]


class TrainingBatch(NamedTuple):
    """Windows of interactions and what came next, flat: nothing in it is padding.

    Axes: ``tokens`` of all windows, one window after the other, the longest window first, oldest
    item first within a window. A rank's share of a small last batch may hold no window at all.
    """

    items: Tensor
    """``(tokens,)`` int64 items."""
    targets: Tensor
    """``(tokens,)`` int64; ``targets[i]`` is what followed ``items[i]``."""
    lengths: Tensor
    """``(windows,)`` int64 tokens of each window; stays on the CPU, where it is read."""
    step: int
    """The batch's number within the run, from 0."""
    step_tokens: int
    """Tokens of the whole step, those of the other ranks too."""


@dataclass(frozen=True, slots=True)
class Windows:
    """Stretches of listeners' training prefixes, together covering every transition once.

    Attributes:
        starts: ``(windows,)`` index into ``Sequences.items`` of the first item.
        lengths: ``(windows,)`` number of items, targets included: 2 to ``max_length + 1``.
    """

    starts: IntArray
    lengths: IntArray

    def __len__(self) -> int:
        return len(self.starts)


def windows(
    sequences: Sequences, prefix: IntArray, max_length: int, which: Which = "all"
) -> Windows:
    """Cut each listener's first ``prefix`` interactions into windows, newest first.

    A window feeds up to ``max_length`` items and asks for the one after each. It begins with the
    item that the next older window asks for last, so no transition is asked for twice and none
    is lost::

        a b c d e f g      max_length 3:   d e f → e f g     a b c → b c d

    ``which="newest"`` keeps only the newest window of each listener, as the paper does: an epoch
    is shorter, and no older transition is ever learnt from.
    """
    if which not in ("all", "newest"):
        raise ConfigError(f"windows={which!r} is not one of all, newest")
    transitions = np.maximum(prefix - 1, 0)
    counts = -(-transitions // max_length)
    if which == "newest":
        counts = np.minimum(counts, 1)
    listener = np.repeat(np.arange(len(prefix)), counts)
    # Number of the window among its listener's, 0 = newest.
    age = np.arange(len(listener)) - np.repeat(np.cumsum(counts) - counts, counts)
    last_target = prefix[listener] - 1 - age * max_length
    first = np.maximum(last_target - max_length, 0)
    return Windows(sequences.offsets[listener] + first, last_target - first + 1)


class Place(NamedTuple):
    """Which batch: of which epoch, at which step of it."""

    epoch: int
    step: int


class BatchDataset(Dataset[TrainingBatch]):
    """An item of this dataset is a whole batch of one rank, asked for by its ``Place``.

    Args:
        sequences: the interactions, memory-mapped.
        chosen: the windows to train on.
        batch_size: windows per step over all ranks together; the last batch of an epoch may be
            smaller.
        seed: with the epoch, gives the order.
        rank, world_size: this process among those that train together.
    """

    def __init__(
        self,
        sequences: Sequences,
        chosen: Windows,
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.sequences = sequences
        self.chosen = chosen
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self._order: tuple[int, IntArray] | None = None

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.chosen) // self.batch_size)

    def __getitem__(self, place: Place) -> TrainingBatch:
        start = place.step * self.batch_size
        numbers = self._permutation(place.epoch)[start : start + self.batch_size]
        batch = place.epoch * self.steps_per_epoch + place.step
        # A window's last item is a target only.
        tokens = int(self.chosen.lengths[numbers].sum()) - len(numbers)
        return self._gather(numbers[self.rank :: self.world_size], batch, tokens)

    def _permutation(self, epoch: int) -> IntArray:
        if self._order is None or self._order[0] != epoch:
            generator = np.random.default_rng([self.seed, epoch])
            self._order = epoch, generator.permutation(len(self.chosen))
        return self._order[1]

    def _gather(self, numbers: IntArray, step: int, step_tokens: int) -> TrainingBatch:
        longest_first = numbers[np.argsort(-self.chosen.lengths[numbers], kind="stable")]
        lengths = self.chosen.lengths[longest_first] - 1
        index = spans(self.chosen.starts[longest_first], lengths)
        return TrainingBatch(
            torch.from_numpy(self.sequences.items[index].astype(np.int64)),
            torch.from_numpy(self.sequences.items[index + 1].astype(np.int64)),
            torch.from_numpy(lengths),
            step,
            step_tokens,
        )


class ResumableSampler(Sampler[Place]):
    """Names the batches of the present epoch that are still to come.

    Args:
        steps_per_epoch: batches in an epoch.
        next_place: the present epoch and how many of its batches are behind; read when the first
            batch of an epoch is asked for, so that a resumed epoch goes on where it stopped.
    """

    def __init__(self, steps_per_epoch: int, next_place: Callable[[], Place]) -> None:
        self.steps_per_epoch = steps_per_epoch
        self.next_place = next_place

    def __len__(self) -> int:
        return self.steps_per_epoch

    def __iter__(self) -> Iterator[Place]:
        # A generator, so that the place is read when the first batch is asked for: Lightning calls
        # iter() before it has restored a checkpoint.
        epoch, start = self.next_place()
        for step in range(start, self.steps_per_epoch):
            yield Place(epoch, step)
