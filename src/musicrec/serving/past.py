"""Listening as it was just before some plays of the past, read from Postgres.

What the service would have read then, with one difference: the cut is a play, not a moment, so
that a play of the same time that came before it in order counts, as it does for the model's own
judgement. Whatever was written since, such as events, counts if it was of before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import orjson

from musicrec.database.engine import Dataset
from musicrec.features import tables
from musicrec.serving.listeners import ByListener
from musicrec.serving.listening import Ints, Listening
from musicrec.serving.popular import popular_order
from musicrec.serving.stored import READ_PLAYS, GraphRow, Stored
from musicrec.serving.track_keys import TrackKeys

if TYPE_CHECKING:
    from adbc_driver_manager.dbapi import Cursor
    from numpy.typing import NDArray

    from musicrec.serving.interests import Interests, InterestsOf

_USERS = """
SELECT user_key, user_id FROM users WHERE user_id = ANY($1::text[]) ORDER BY user_key
"""
_PLAYS = """
SELECT user_key, track_key, (extract(epoch FROM occurred_at) * 1000000)::bigint AS at,
       coalesce(skipped::int, -1)::smallint AS skipped
FROM interactions WHERE user_key = ANY($1::bigint[]) ORDER BY user_key, occurred_at, tie
"""
_SAID = """
SELECT user_key, track_key, (extract(epoch FROM occurred_at) * 1000000)::bigint AS at,
       kind = 'like' AS is_like
FROM feedback WHERE user_key = ANY($1::bigint[]) ORDER BY user_key, occurred_at
"""
_GRAPHS = """
SELECT user_key, graph_id, graph::text AS document FROM user_interest_graph
WHERE user_key = ANY($1::bigint[]) ORDER BY user_key, version DESC
"""
_WEEK = """
SELECT track_key, plays_7d FROM track_popularity JOIN tracks USING (track_id)
WHERE event_timestamp = $1
"""


class Target(NamedTuple):
    """A play of the past that is to be foreseen.

    Attributes:
        at: microseconds since 1970.
        item: its item index.
    """

    user_id: str
    at: int
    item: int

    @property
    def moment(self) -> datetime:
        """Its time, UTC."""
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=self.at)


@dataclass(frozen=True, slots=True)
class Past:
    """A target, and what was known of its listener just before it.

    Attributes:
        interests: of the newest graph made of plays before it alone; None where there is none.
        is_repeat: whether the listener had played the track before.
    """

    target: Target
    listening: Listening
    interests: Interests | None
    is_repeat: bool

    @property
    def as_of(self) -> datetime:
        """The moment of the target."""
        return self.target.moment


class PastListening:
    """Reads what was known before targets; a few queries for many listeners.

    Args:
        dataset: an opened one, timed.
        keys: of the model's tracks in it.
        interests: makes interest graphs ready; None: nobody's are looked at.

    Raises:
        DatabaseError: by everything here, if the server cannot be reached or is lost.
    """

    def __init__(self, dataset: Dataset, keys: TrackKeys, interests: InterestsOf | None) -> None:
        self._dataset = dataset
        self._keys = keys
        self._interests = interests
        self._popular: dict[datetime, Ints] = {}

    def before(self, targets: Sequence[Target], *, all_heard: bool) -> list[Past]:
        """What was known before each, in their order.

        Args:
            all_heard: ``Listening.heard`` is of all plays, not of the newest alone.
        """
        user_ids = sorted({target.user_id for target in targets})
        with tables.reading(self._dataset) as cursor:
            users = _rows(cursor, _USERS, user_ids)
            keys = users["user_key"].to_numpy()
            plays = ByListener(keys, _rows(cursor, _PLAYS, keys.tolist()))
            said = ByListener(keys, _rows(cursor, _SAID, keys.tolist()))
            graphs = self._graphs(cursor, keys)
        row_of = {user_id: row for row, user_id in enumerate(users["user_id"].to_pylist())}
        nobody = len(row_of)  # of somebody who was forgotten since there are no rows
        return [
            self._past(target, row_of.get(target.user_id, nobody), plays, said, graphs, all_heard)
            for target in targets
        ]

    def popular(self, end: datetime, play_counts: NDArray[np.int64]) -> Ints:
        """Items by the plays of the week up to ``end``, as ``popular.Popular`` orders them.

        Args:
            end: of a window of ``track_popularity`` that was computed.
            play_counts: ``(catalogue_size,)`` of the bundle's catalogue.
        """
        if end not in self._popular:
            with tables.reading(self._dataset) as cursor:
                rows = _rows(cursor, _WEEK, end)
            items = self._keys.items(rows["track_key"].to_numpy())
            weekly = np.zeros(len(play_counts) + 1, np.float32)
            weekly[items] = rows["plays_7d"].to_numpy()
            self._popular[end] = popular_order(weekly[1:], play_counts)
        return self._popular[end]

    def _graphs(self, cursor: Cursor, keys: Ints) -> Mapping[int, list[GraphRow]]:
        """Every version of the listeners' graphs by their row, the newest first."""
        found: dict[int, list[GraphRow]] = {}
        if self._interests is not None:
            row_of = {key: row for row, key in enumerate(keys.tolist())}
            for row in _rows(cursor, _GRAPHS, keys.tolist()).to_pylist():
                document = orjson.loads(row["document"])
                # One that does not say until when may be made of the very target.
                if document.get("heard_until") is not None:
                    graph = GraphRow(row["graph_id"], document)
                    found.setdefault(row_of[row["user_key"]], []).append(graph)
        return found

    def _past(
        self,
        target: Target,
        row: int,
        plays: ByListener,
        said: ByListener,
        graphs: Mapping[int, list[GraphRow]],
        all_heard: bool,
    ) -> Past:
        tracks, times = plays.of(row, "track_key"), plays.of(row, "at")
        cut = self._cut(target, tracks, times)
        newest = slice(max(0, cut - READ_PLAYS), cut)
        heard = np.unique(tracks[:cut])
        liked, disliked = _opinions(said, row, target.at)
        stored = Stored(
            tracks=tracks[newest],
            times=times[newest],
            skipped=plays.of(row, "skipped")[newest].astype(np.int8),
            heard=heard if all_heard else None,
            liked=liked,
            disliked=disliked,
            graph=None,
        )
        past = Past(
            target,
            stored.listening(self._keys),
            None,
            bool((self._keys.items(heard) == target.item).any()),
        )
        for graph in graphs.get(row, ()):
            assert self._interests is not None
            interests = self._interests.of(target.user_id, graph, past.as_of)
            if interests is not None:
                return Past(target, past.listening, interests, past.is_repeat)
        return past

    def _cut(self, target: Target, tracks: Ints, times: Ints) -> int:
        """How many plays came before the target; those of earlier times if it is not there."""
        first, end = np.searchsorted(times, [target.at, target.at + 1]).tolist()
        same = self._keys.items(tracks[first:end]) == target.item
        return first + (int(np.argmax(same)) if same.any() else 0)


def _opinions(said: ByListener, row: int, before: int) -> tuple[Ints, Ints]:
    """Tracks liked and disliked by the newest word on each before a moment, by their keys."""
    is_before = said.of(row, "at") < before
    tracks, is_like = said.of(row, "track_key")[is_before], said.of(row, "is_like")[is_before]
    about, newest = np.unique(tracks[::-1], return_index=True)
    likes = is_like[::-1][newest]
    return about[likes], about[~likes]


def _rows(cursor: Cursor, query: str, value: Any) -> Any:
    cursor.execute(query, parameters=(value,))
    return cursor.fetch_arrow_table()
