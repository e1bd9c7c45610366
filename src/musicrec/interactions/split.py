"""What a model may learn from, and what it is asked: splits free of leaks.

Both splits cut each listener's sequence into a prefix that is known and targets that follow it,
so one shape serves both::

    listener      a  b  c  d  e  f
                  └─ train ┘  │  └── test target, asked with a b c d e
                              └───── validation target, asked with a b c d
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from musicrec.errors import ConfigError, DataError
from musicrec.interactions.sequence import IntArray, Sequences, spans

Which = Literal["last", "all"]


@dataclass(frozen=True, slots=True)
class Targets:
    """Interactions to be predicted, each from what its listener played before it.

    Attributes:
        listeners: ``(targets,)`` row in ``Sequences``.
        positions: ``(targets,)`` place in that listener's sequence, from 0; at least 1, so the
            history is never empty.
        known: ``(listeners,)`` how many interactions of *each* listener, counted from the oldest,
            came before the questions are asked: what a baseline may count.
        without_history: targets left out because nothing precedes them.
    """

    listeners: IntArray
    positions: IntArray
    known: IntArray
    without_history: int = 0

    def __len__(self) -> int:
        return len(self.listeners)

    def items(self, sequences: Sequences) -> NDArray[np.int32]:
        """``(targets,)`` item index of each target."""
        return sequences.items[sequences.offsets[self.listeners] + self.positions]


@dataclass(frozen=True, slots=True)
class Split:
    """Training prefix lengths ``(listeners,)`` and the two sets of targets."""

    name: str
    train: IntArray
    val: Targets
    test: Targets


def leave_one_out(sequences: Sequences) -> Split:
    """The last interaction is the test target, the one before it the validation target.

    Listeners with fewer than three interactions are trained on whole and never asked about.
    """
    lengths = sequences.lengths
    asked = np.flatnonzero(lengths >= 3)
    if not len(asked):
        raise DataError(
            "no listener has three interactions, which split=leave_one_out needs; "
            "import more listens"
        )
    train = lengths.copy()
    train[asked] -= 2
    before_test = lengths.copy()
    before_test[asked] -= 1
    return Split(
        name="leave_one_out",
        train=train,
        val=Targets(asked, train[asked], known=train),
        test=Targets(asked, before_test[asked], known=before_test),
    )


def temporal(
    sequences: Sequences,
    val_quantile: float = 0.8,
    test_quantile: float = 0.9,
    target: Which = "last",
) -> Split:
    """Cut all listeners at two moments: everything before the first trains.

    The cuts are quantiles of the interactions' times; equal times fall on the same side, the
    later one. Validation lies before test. ``target`` asks for each listener's last interaction
    in the period, or for all of them; the history of a target is everything before it, its own
    period included.
    """
    if not sequences.timed:
        raise ConfigError(
            "split=temporal needs times, and this dataset only has an order; "
            "use split=leave_one_out"
        )
    if not 0 < val_quantile < test_quantile < 1:
        raise ConfigError(
            f"split.val_quantile={val_quantile} and split.test_quantile={test_quantile} "
            "must rise between 0 and 1"
        )
    if target not in ("last", "all"):
        raise ConfigError(f"split.target={target!r} is not one of last, all")
    if not sequences.num_interactions:
        raise DataError("the dataset holds no interactions; import some listens")
    val_cut, test_cut = np.quantile(
        sequences.times, [val_quantile, test_quantile], method="higher"
    ).astype(np.int64)
    before_val, before_test = (
        _counts_before(sequences, val_cut),
        _counts_before(sequences, test_cut),
    )
    split = Split(
        name="temporal",
        train=before_val,
        val=_period(before_val, before_test, target),
        test=_period(before_test, sequences.lengths, target),
    )
    for period, targets in (("validation", split.val), ("test", split.test)):
        if not len(targets):
            raise DataError(
                f"split=temporal leaves no {period} target; lower split.val_quantile and "
                "split.test_quantile, or import more listens"
            )
    return split


def _counts_before(sequences: Sequences, moment: np.int64) -> IntArray:
    """How many interactions of each listener lie strictly before ``moment``."""
    running = np.concatenate([[0], np.cumsum(sequences.times < moment)])
    return running[sequences.offsets[1:]] - running[sequences.offsets[:-1]]


def _period(start: IntArray, end: IntArray, target: Which) -> Targets:
    """Targets among positions ``start..end-1`` of each listener."""
    counts = end - start
    if target == "last":
        listeners = np.flatnonzero(counts)
        positions = end[listeners] - 1
    else:
        listeners = np.repeat(np.arange(len(counts)), counts)
        positions = spans(start, counts)
    has_history = positions > 0
    return Targets(
        listeners[has_history],
        positions[has_history],
        known=start,
        without_history=int((~has_history).sum()),
    )


def cold_counts(sequences: Sequences, split: Split) -> dict[str, int]:
    """How many test targets the training prefix cannot have taught.

    ``cold_items``: targets whose track no training interaction holds. ``cold_listeners``: targets
    of listeners without a single training interaction. They stay in the metrics; a model mostly
    misses them.
    """
    warm = np.zeros(sequences.catalogue_size + 1, dtype=bool)
    warm[sequences.items[spans(sequences.offsets[:-1], split.train)]] = True
    return {
        "cold_items": int((~warm[split.test.items(sequences)]).sum()),
        "cold_listeners": int((split.train[split.test.listeners] == 0).sum()),
        "without_history": split.test.without_history,
    }
