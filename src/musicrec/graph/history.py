"""Listeners' plays and what is known of the tracks, from Postgres: two queries for many users."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import psycopg
from numpy.typing import NDArray

from musicrec.database.engine import Dataset
from musicrec.errors import ConfigError, DatabaseError, DataError
from musicrec.graph.words import MAX_TITLE, artist_of, clean, era_in, era_of, meaning, tag_of

#: Tags of a track that are looked at, in the order the catalogue has them: the surest first.
MAX_TAGS = 12

# A play that does not say whether it was skipped was, if it was heard for less than 30 seconds.
# A phone may lie on a table; whoever listens in a car is on the move.
_PLAYS = r"""
SELECT user_key, track_key, (extract(epoch FROM occurred_at) * 1000000)::bigint,
       extract(epoch FROM date_trunc('hour', occurred_at AT TIME ZONE %(zone)s))::bigint / 3600,
       coalesce(skipped, ms_played < 30000, false)::int,
       coalesce(device ~* '\m(car|carplay|automotive|android auto)\M', false)::int
FROM interactions
WHERE user_key = ANY(%(users)s) AND (%(as_of)s::timestamptz IS NULL OR occurred_at < %(as_of)s)
ORDER BY user_key, occurred_at, tie
"""
_TRACKS = """
SELECT track_key, track_id, title, artist, album, extract(year FROM released_on)::int,
       tags[:%(tags)s]
FROM tracks WHERE track_key = ANY(%(tracks)s)
"""

Ints = NDArray[np.int64]

CHUNK = 50_000
_NONE = np.empty((0, 6), dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Track:
    """A track as the catalogue has it, cleaned and capped.

    Attributes:
        tags: genres, moods and the like; decades are in ``era``, tags that say nothing are gone.
        era: of the year of release, else of a tag.
    """

    track_id: str
    title: str | None
    artist: str | None
    album: str | None
    year: int | None
    era: str | None
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class History:
    """One listener's plays, oldest first, one entry a play in each array.

    Attributes:
        track: key into the tracks that came with it.
        at: microseconds since 1970.
        hour: whole hours since 1970 on the clock of the zone that was asked for.
        skipped, moving: 0 or 1.
    """

    track: Ints
    at: Ints
    hour: Ints
    skipped: Ints
    moving: Ints


def user_key_of(dataset: Dataset, user_id: str) -> int:
    """The surrogate of an outside id.

    Raises:
        DataError: no such user.
    """
    rows = _rows(dataset, "SELECT user_key FROM users WHERE user_id = %(user)s", {"user": user_id})
    if not rows:
        raise DataError(
            f"dataset {dataset.name!r} has no user {user_id!r}; user_id is the id that the "
            "imported file gives"
        )
    return int(rows[0][0])


def histories(
    dataset: Dataset, user_keys: Sequence[int], *, as_of: datetime | None, zone: str
) -> Iterator[tuple[int, History, dict[int, Track]]]:
    """Each listener with a play before ``as_of``, by rising key, with all tracks of all of them.

    All of them are in memory at once, at about 150 bytes a play while they are read, then 50.

    Args:
        dataset: a timed one.
        zone: an IANA name, such as ``Europe/Vienna``: the clock that hours and weekdays are of.

    Raises:
        DataError: the dataset has no times, or no listens.
        ConfigError: no such zone, or ``as_of`` has none.
        DatabaseError: the server refuses or is lost.
    """
    _check(dataset, as_of, zone)
    values = {"users": [int(user) for user in user_keys], "as_of": as_of, "zone": zone}
    plays = np.concatenate([_NONE, *_chunks(dataset, _PLAYS, values)])
    keys = np.unique(plays[:, 1]).tolist()
    rows = _rows(dataset, _TRACKS, {"tracks": keys, "tags": MAX_TAGS})
    tracks = {row[0]: track_of(*row[1:]) for row in rows}
    users, starts = np.unique(plays[:, 0], return_index=True)
    for user, mine in zip(users.tolist(), np.split(plays, starts[1:]), strict=False):
        yield user, History(*(np.ascontiguousarray(column) for column in mine.T[1:])), tracks


def _check(dataset: Dataset, as_of: datetime | None, zone: str) -> None:
    if as_of is not None and as_of.tzinfo is None:
        text = as_of.isoformat()
        raise ConfigError(f"as_of={text} has no time zone; write as_of={text}+00:00 for UTC")
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigError(
            f"zone={zone!r} is no time zone; use an IANA name, such as UTC or Europe/Vienna"
        ) from None
    timed = _rows(dataset, "SELECT timed FROM dataset_info", {})[0][0]
    if timed is None:
        raise DataError(
            f"dataset {dataset.name!r} holds no listens; import some with "
            f"scripts/import_interactions.py dataset={dataset.name}"
        )
    if not timed:
        raise DataError(
            f"dataset {dataset.name!r} is untimed (order only), and an interest graph needs times; "
            "use a dataset imported from a format with times"
        )


def track_of(
    track_id: str,
    title: str | None,
    artist: str | None,
    album: str | None,
    year: int | None,
    raw_tags: list[str | None] | None,
) -> Track:
    """A row of the table ``tracks``, cleaned; spellings of one genre become one tag."""
    tags = [tag for raw in raw_tags or () if raw and (tag := tag_of(raw))]
    eras = (era for tag in tags if (era := era_of(tag)))
    said = dict.fromkeys(
        label if kind == "genre" else tag
        for tag in tags
        if (meant := meaning(tag)) and (kind := meant[0]) != "era" and (label := meant[1])
    )
    return Track(
        track_id=track_id,
        title=clean(title, MAX_TITLE),
        artist=artist_of(artist),
        album=album,
        year=year,
        era=era_in(year) if year else next(eras, None),
        tags=tuple(said),
    )


@contextmanager
def _asked(dataset: Dataset, query: str, values: dict[str, Any]) -> Iterator[Any]:
    """A cursor over the rows; SQLAlchemy's pool lends the connection, psycopg reads in binary."""
    try:
        with dataset.engine.connect() as lent:
            connection: Any = lent.connection.driver_connection
            with connection.cursor(binary=True) as cursor:
                cursor.execute(query, values)
                yield cursor
    except psycopg.Error as error:
        reason = " ".join((error.diag.message_primary or str(error)).split())
        place = dataset.address.place
        raise DatabaseError(f"cannot read listens at {place}: {reason}") from error


def _rows(dataset: Dataset, query: str, values: dict[str, Any]) -> list[tuple[Any, ...]]:
    with _asked(dataset, query, values) as cursor:
        return list(cursor.fetchall())


def _chunks(dataset: Dataset, query: str, values: dict[str, Any]) -> Iterator[Ints]:
    """Rows of whole numbers, as arrays: as tuples they would fill the memory."""
    with _asked(dataset, query, values) as cursor:
        while rows := cursor.fetchmany(CHUNK):
            yield np.array(rows, dtype=np.int64)
