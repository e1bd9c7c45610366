"""Which of a chunk's listens are new, and how they order among equal times.

A *moment* is one listener at one time. Few hold more than one listen, but some files have minutes
or days for times, and there the order of the lines is all the order there is: it becomes ``tie``.

Everything here is the vectorised form of one sentence: go through the lines; a listen whose
(user, time, track) is stored is known, any other is stored with the next free tie of its moment.
So the outcome does not depend on where a file is cut into chunks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

#: ``tie`` is a smallint counted from 0.
LAST_TIE = 32_767


@dataclass(frozen=True, slots=True)
class StoredListens:
    """Listens that are in the table already; four arrays of one length.

    ``occurred_at`` is in microseconds since 1970, UTC.
    """

    user_key: Ints
    occurred_at: Ints
    track_key: Ints
    tie: npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Placement:
    """What becomes of a chunk's listens; all row numbers refer to the chunk.

    Attributes:
        rows: the rows to add, in order of (user_key, occurred_at, tie).
        tie: for each of ``rows``.
        refused: rows for which the moment has no tie left, ascending.
        num_known: rows that are stored, or repeat an earlier line.
    """

    rows: Ints
    tie: npt.NDArray[np.int16]
    refused: Ints
    num_known: int


class Moments:
    """The moments of one chunk, numbered in order of (user_key, occurred_at).

    Attributes:
        rows: the chunk's rows in order of (user_key, occurred_at), and of the file within a moment.
        moment: the moment of each of ``rows``; never decreases.
        start: for each moment the place in ``rows`` of its first listen.
    """

    def __init__(self, user_key: Ints, occurred_at: Ints) -> None:
        """Order a chunk by the user and the time (microseconds) of each row."""
        pair = _pair(user_key, occurred_at)
        self.rows: Ints = np.argsort(pair, kind="stable")
        pair = pair[self.rows]
        opens = np.ones(len(pair), dtype=bool)
        np.not_equal(pair[1:], pair[:-1], out=opens[1:])
        self.start: Ints = np.flatnonzero(opens)
        self.moment: Ints = np.cumsum(opens) - 1
        self._pair = pair[self.start]

    def __len__(self) -> int:
        return len(self.start)

    def find(self, user_key: Ints, occurred_at: Ints) -> Ints:
        """The moment of each (user, time), -1 where the chunk has no such moment."""
        if len(self) == 0:
            return np.full(len(user_key), -1)
        wanted = _pair(user_key, occurred_at)
        moment = np.searchsorted(self._pair, wanted)
        moment[moment == len(self._pair)] = 0
        return np.where(self._pair[moment] == wanted, moment, -1)

    def spans(self) -> tuple[Ints, Ints, Ints]:
        """Each user of the chunk, ascending, with their first and last time."""
        user_key = self._pair.real
        opens = np.flatnonzero(np.diff(user_key, prepend=0))
        closes = np.append(opens[1:], len(user_key))[: len(opens)] - 1
        occurred_at = self._pair.imag.astype(np.int64)
        return user_key[opens].astype(np.int64), occurred_at[opens], occurred_at[closes]


def _pair(user_key: Ints, occurred_at: Ints) -> npt.NDArray[np.complex128]:
    """(user, time) as one number: complex numbers sort by real, then by imaginary part.

    Both halves are exact up to 2**53: keys are counted from 1, and 2**53 microseconds is 2255.
    """
    pair = np.empty(len(user_key), dtype=np.complex128)
    pair.real = user_key
    pair.imag = occurred_at
    return pair


def place(moments: Moments, track_key: Ints, stored: Iterable[StoredListens]) -> Placement:
    """Tell new listens from known ones and give the new ones their ties.

    Args:
        moments: of the chunk.
        track_key: for each row of the chunk.
        stored: every stored listen of the chunk's moments; others among them are passed over.
    """
    track = track_key[moments.rows]
    crowded = np.diff(moments.start, append=len(track)) > 1
    known = np.zeros(len(track), dtype=bool)
    next_tie = np.zeros(len(moments), dtype=np.int64)
    stored_moment, stored_track = [], []
    for listens in stored:
        moment = moments.find(listens.user_key, listens.occurred_at)
        met = moment >= 0
        moment, heard = moment[met], listens.track_key[met]
        np.maximum.at(next_tie, moment, listens.tie[met].astype(np.int64) + 1)
        # A moment with one line, the common case, needs no search for the line that is meant.
        lone = ~crowded[moment]
        only_line = moments.start[moment[lone]]
        known[only_line[track[only_line] == heard[lone]]] = True
        stored_moment.append(moment[~lone])
        stored_track.append(heard[~lone])
    places = np.flatnonzero(crowded[moments.moment])
    repeats = _repeats(
        np.concatenate([*stored_moment, moments.moment[places]]),
        np.concatenate([*stored_track, track[places]]),
    )
    known[places] = repeats[len(repeats) - len(places) :]
    return _number(moments, track, known, next_tie)


def _repeats(moment: Ints, track: Ints) -> Bools:
    """Whether an earlier element has the same moment and track."""
    order = np.lexsort((track, moment))
    same = (np.diff(moment[order]) == 0) & (np.diff(track[order]) == 0)
    repeats = np.zeros(len(order), dtype=bool)
    repeats[order[1:][same]] = True
    return repeats


def _number(moments: Moments, track: Ints, known: Bools, next_tie: Ints) -> Placement:
    """Ties for what is not known, counted on from ``next_tie`` within each moment."""
    new = ~known
    before: Ints = np.cumsum(new) - new
    tie = next_tie[moments.moment] + before - before[moments.start][moments.moment]
    refused = new & (tie > LAST_TIE)
    if refused.any():
        # A line that repeats a refused one is refused too: nothing it could repeat is stored.
        lost = set(zip(moments.moment[refused].tolist(), track[refused].tolist(), strict=True))
        for at in np.flatnonzero(known & np.isin(moments.moment, moments.moment[refused])):
            refused[at] = (int(moments.moment[at]), int(track[at])) in lost
    added = new & ~refused
    return Placement(
        rows=moments.rows[added],
        tie=tie[added].astype(np.int16),
        refused=np.sort(moments.rows[refused]),
        num_known=int(np.count_nonzero(known & ~refused)),
    )
