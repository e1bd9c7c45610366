"""What Postgres knows of a listener, in one round trip.

The arrays come in Postgres' binary format and become numpy's without an object for each play: a
header of 20 bytes, then for each element its size (4 bytes) and itself, big-endian.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import orjson
import psycopg
from numpy.typing import NDArray
from psycopg import AsyncConnection

from musicrec.serving.listening import KEPT_PLAYS, Ints, Listening, listening_of_items
from musicrec.serving.parts import PartUnavailable
from musicrec.serving.postgres import Postgres
from musicrec.serving.track_keys import TrackKeys

#: Plays read of a listener: so many that of those the model knows ``KEPT_PLAYS`` are left, unless
#: more than half of the newest are of tracks that it does not know.
READ_PLAYS = 2 * KEPT_PLAYS

_HEADER = 20
_EPOCH_2000 = 946_684_800_000_000  # microseconds from 1970 to 2000, where Postgres counts from

# The moment comes as a parameter or is null: then everything counts, whatever clock it was
# written by.
_PLAYS = """
SELECT listener.user_key, plays.tracks, plays.times, plays.skipped, said.tracks, said.likes,
       graph.graph_id, graph.document, {heard}
FROM users AS listener
CROSS JOIN LATERAL (
    SELECT array_agg(track_key) AS tracks, array_agg(occurred_at) AS times,
           array_agg(coalesce(skipped::int, -1)::smallint) AS skipped
    FROM (
        SELECT track_key, occurred_at, skipped FROM interactions
        WHERE user_key = listener.user_key
          AND occurred_at < coalesce(%(before)s::timestamptz, 'infinity')
        ORDER BY occurred_at DESC, tie DESC LIMIT %(num)s
    ) AS newest
) AS plays
CROSS JOIN LATERAL (
    SELECT array_agg(track_key) AS tracks, array_agg((kind = 'like')::int::smallint) AS likes
    FROM (
        SELECT DISTINCT ON (track_key) track_key, kind FROM feedback
        WHERE user_key = listener.user_key
          AND occurred_at < coalesce(%(before)s::timestamptz, 'infinity')
        ORDER BY track_key, occurred_at DESC
    ) AS newest
) AS said
LEFT JOIN LATERAL (
    SELECT graph_id,
           CASE WHEN graph_id IS DISTINCT FROM %(known)s::bigint THEN graph::text END AS document
    FROM user_interest_graph WHERE user_key = listener.user_key AND is_current
) AS graph ON true
WHERE listener.user_id = %(user)s
"""

_HEARD = """
(SELECT array_agg(DISTINCT track_key) FROM interactions WHERE user_key = listener.user_key
   AND occurred_at < coalesce(%(before)s::timestamptz, 'infinity'))
"""

_NEWEST = _PLAYS.format(heard="NULL::bigint[]")
_EVERYTHING = _PLAYS.format(heard=_HEARD)


@dataclass(frozen=True, slots=True)
class GraphRow:
    """The current interest graph; ``serving.interests``'s ``StoredGraph``."""

    graph_id: int
    document: Mapping[str, Any] | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Stored:
    """What Postgres knows of one listener; tracks by their keys.

    Attributes:
        tracks, times, skipped: ``(plays,)`` oldest first; microseconds since 1970, and -1 where
            it is not known.
        heard: ``(tracks,)`` all ever played; None where it was not asked for.
        liked, disliked: by the newest word on each track.
        graph: None where there is none.
    """

    tracks: Ints = field(repr=False)
    times: Ints = field(repr=False)
    skipped: NDArray[np.int8] = field(repr=False)
    heard: Ints | None = field(repr=False)
    liked: Ints = field(repr=False)
    disliked: Ints = field(repr=False)
    graph: GraphRow | None

    def listening(self, keys: TrackKeys) -> Listening:
        """In item indices; tracks that the model does not know are left out."""
        items = keys.items(self.tracks)
        known = items > 0
        heard = None if self.heard is None else _known(keys.items(self.heard))
        return listening_of_items(
            items[known],
            self.times[known] if keys.is_timed else None,
            self.skipped[known],
            heard=heard,
            liked=_known(keys.items(self.liked)).tolist(),
            disliked=_known(keys.items(self.disliked)).tolist(),
        )


async def read_listener(
    postgres: Postgres,
    user_id: str,
    before: datetime | None,
    *,
    graph_known: int | None,
    all_heard: bool,
    seconds: float,
) -> Stored | None:
    """What there is of a listener; None of somebody the dataset does not know.

    Args:
        before: plays and likes of then and later do not count; None: all count.
        graph_known: the graph whose document is not needed.
        all_heard: also every track ever played.
        seconds: to wait at most.

    Raises:
        PartUnavailable: it could not be read in time.
    """
    asked = {"user": user_id, "before": before, "known": graph_known, "num": READ_PLAYS}

    async def read(connection: AsyncConnection[Any]) -> Stored | None:
        async with connection.cursor(binary=True) as cursor:
            await cursor.execute(_EVERYTHING if all_heard else _NEWEST, asked)
            result = cursor.pgresult
            if result is None or not result.ntuples:
                return None
            return _stored([result.get_value(0, column) for column in range(result.nfields)])

    try:
        return await postgres.run(read, seconds)
    except psycopg.Error as error:  # such as: the dataset was dropped
        raise PartUnavailable(f"Postgres refuses: {' '.join(str(error).split())}") from error


def _stored(values: list[bytes | None]) -> Stored:
    _, tracks, times, skipped, said, likes, graph_id, document, heard = values
    about, is_like = _array(said, ">i8"), _array(likes, ">i2") == 1
    graph = None
    if graph_id is not None:
        read = None if document is None else orjson.loads(document)
        graph = GraphRow(int.from_bytes(graph_id, "big", signed=True), read)
    return Stored(
        tracks=_array(tracks, ">i8")[::-1].astype(np.int64),
        times=_array(times, ">i8")[::-1].astype(np.int64) + _EPOCH_2000,
        skipped=_array(skipped, ">i2")[::-1].astype(np.int8),
        heard=None if heard is None else _array(heard, ">i8").astype(np.int64),
        liked=about[is_like].astype(np.int64),
        disliked=about[~is_like].astype(np.int64),
        graph=graph,
    )


def _array(value: bytes | None, kind: str) -> NDArray[Any]:
    """An array of one dimension without nulls, in Postgres' binary format; null is empty."""
    if value is None:
        return np.empty(0, kind)
    element = np.dtype([("size", ">i4"), ("value", kind)])
    elements: NDArray[Any] = np.frombuffer(value, element, offset=_HEADER)["value"]
    return elements


def _known(items: Ints) -> Ints:
    return items[items > 0]
