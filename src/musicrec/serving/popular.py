"""What is played most just now, by everyone."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from musicrec.features.held import COLUMNS, VIEWS, HeldTracks
from musicrec.features.views import TRACK_POPULARITY
from musicrec.serving.listening import Ints
from musicrec.serving.reasons import Week

#: Tracks kept in order: more than any answer leaves out and shows together.
KEPT = 2_000

_VIEW = VIEWS.index(TRACK_POPULARITY)
_PLAYS = COLUMNS.index("track_popularity__plays_7d")
_LISTENERS = COLUMNS.index("track_popularity__listeners_7d")


class Popular:
    """Tracks by the plays of the last week, where the feature store has them, and of all time.

    Args:
        play_counts: ``(catalogue_size,)`` plays in the data of the bundle.
        tracks: online features; None where they are not there.
    """

    def __init__(self, play_counts: NDArray[np.int64], tracks: HeldTracks | None = None) -> None:
        self._play_counts = play_counts
        self._tracks = tracks
        self._stamps = np.empty(0)
        if tracks is not None:
            stamps = tracks.stamps[:, _VIEW]
            self._stamps = np.unique(stamps[~np.isnan(stamps)])
        self._orders: dict[tuple[int, int], Ints] = {}
        # What will be asked for, now and not by the first who asks: a moment of today, or, where
        # the service stands in the past, one of the newest window's.
        for moment in (time.time() * 1e6, *self._stamps[-1:].tolist()):
            self.at(moment)

    def at(self, now: float) -> Ints:
        """``(at most KEPT,)`` item indices, the most played first; equals by index.

        Args:
            now: microseconds since 1970. Tracks whose row is not fresh then count as not played
                in that week, and are ordered by the plays in the bundle's data.
        """
        ttl = TRACK_POPULARITY.ttl
        oldest = now - ttl.total_seconds() * 1e6 if ttl else -np.inf
        first, last = np.searchsorted(self._stamps, [oldest, now], side="left").tolist()
        if last < len(self._stamps) and self._stamps[last] == now:
            last += 1
        if first >= last:
            first = last = 0
        # Which rows are fresh changes with a new window only, a few times a day.
        order = self._orders.get((first, last))
        if order is None:
            order = self._order(now, any_fresh=first < last)
            if len(self._orders) >= 8:
                self._orders.clear()
            self._orders[first, last] = order
        return order

    def week(self, items: Ints, now: float) -> Week | None:
        """How many listened to some items in the week; None where that is not known."""
        if self._tracks is None:
            return None
        stamps = self._tracks.stamps[items, _VIEW]
        listeners = self._tracks.at(items, now)[0][:, _LISTENERS]
        return Week(listeners, np.nan_to_num(stamps).astype(np.int64))

    def _order(self, now: float, *, any_fresh: bool) -> Ints:
        num = len(self._play_counts)
        weekly = np.zeros(num, np.float32)
        if any_fresh and self._tracks is not None:
            weekly = self._tracks.at(np.arange(1, num + 1), now)[0][:, _PLAYS]
        return popular_order(weekly, self._play_counts)


def popular_order(weekly: NDArray[np.float32], play_counts: NDArray[np.int64]) -> Ints:
    """``(at most KEPT,)`` item indices, the most played in the week first, then of all time.

    Args:
        weekly: ``(catalogue_size,)`` plays of the week; NaN where that is not known.
        play_counts: ``(catalogue_size,)`` by which equals are ordered; then by index.
    """
    order = np.lexsort((-play_counts, -np.nan_to_num(weekly)))[:KEPT]
    return order.astype(np.int64) + 1
