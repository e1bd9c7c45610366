"""Listening sequences as three flat arrays: the form in which training reads them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Sequences:
    """Every listener's interactions, oldest first, one listener after the other.

    ::

        offsets  0        3     5          listener 0 played 4 2 4, listener 1 played 1 3
        items    4  2  4  1  3
        times    t0 t1 t2 t3 t4            rising within a listener

    Attributes:
        items: ``(interactions,)`` int32 item indices, 1..catalogue_size; memory-mapped or not.
        offsets: ``(listeners + 1,)`` int64; listener ``u`` owns ``items[offsets[u]:offsets[u+1]]``.
        times: ``(interactions,)`` int64 microseconds since 1970 UTC; for an untimed dataset only
            their order means anything.
        catalogue_size: number of items; index 0 is padding and not counted.
        timed: whether ``times`` are times.
    """

    items: NDArray[np.int32]
    offsets: IntArray
    times: IntArray
    catalogue_size: int
    timed: bool = True

    @property
    def num_listeners(self) -> int:
        return len(self.offsets) - 1

    @property
    def num_interactions(self) -> int:
        return int(self.offsets[-1])

    @property
    def lengths(self) -> IntArray:
        """``(listeners,)`` number of interactions of each listener."""
        return np.diff(self.offsets)

    def of(self, listener: int) -> NDArray[np.int32]:
        """All items of one listener, oldest first."""
        return self.items[self.offsets[listener] : self.offsets[listener + 1]]


def spans(starts: IntArray, lengths: IntArray) -> IntArray:
    """Indices ``starts[i] .. starts[i] + lengths[i] - 1`` for every ``i``, one after the other."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(total)


def play_counts(
    sequences: Sequences, prefix: IntArray, listeners_at_once: int = 10_000
) -> IntArray:
    """``(catalogue_size + 1,)`` plays of each item within each listener's first ``prefix`` ones.

    Memory grows with ``listeners_at_once``, not with the history.
    """
    items = sequences.catalogue_size + 1
    counts = np.zeros(items, dtype=np.int64)
    for first in range(0, sequences.num_listeners, listeners_at_once):
        these = slice(first, first + listeners_at_once)
        played = spans(sequences.offsets[:-1][these], prefix[these])
        counts += np.bincount(sequences.items[played], minlength=items)
    return counts


def transitions(sequences: Sequences, prefix: IntArray, lag: int = 0) -> tuple[IntArray, IntArray]:
    """Items played one after the other within each listener's first ``prefix`` ones.

    Args:
        lag: plays between the two; 0 for right one after the other.

    Returns:
        ``(transitions,)`` int64 what came before, and what after.
    """
    before = spans(sequences.offsets[:-1], np.maximum(prefix - 1 - lag, 0))
    after = before + 1 + lag
    return sequences.items[before].astype(np.int64), sequences.items[after].astype(np.int64)
