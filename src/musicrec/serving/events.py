"""What listeners do, written to Postgres: from the next answer on it counts.

Plays are rows of ``interactions`` like any other, likes and dislikes rows of ``feedback``. Writing
the same event twice changes nothing: its listener, moment and track are its name. A play that was
told as a listen when it began may be told as a skip when it ends, and is one from then on.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import psycopg
from psycopg import AsyncConnection

from musicrec.errors import DataError, ServingError
from musicrec.serving.parts import PartUnavailable
from musicrec.serving.postgres import Postgres

Kind = Literal["listen", "skip", "like", "dislike"]

#: How long a write may take: unlike an answer, it cannot do without.
WRITE_SECONDS = 2.0

#: ``interactions.source`` of what comes this way.
SOURCE = "service"

_FIRST, _FUTURE = datetime(1970, 1, 1, tzinfo=UTC), timedelta(days=1)

# Who writes for a listener holds their row: two events of one moment get different ties, and an
# erasure comes before or after, not between.
_KNOWN = """
SELECT (SELECT track_key FROM tracks WHERE track_id = %(track)s),
       (SELECT timed FROM dataset_info),
       (SELECT user_key FROM users WHERE user_id = %(user)s FOR NO KEY UPDATE)
"""
_NEW_USER = """
INSERT INTO users (user_id) VALUES (%(user)s)
ON CONFLICT (user_id) DO UPDATE SET user_id = excluded.user_id RETURNING user_key
"""
# A statement that changes nothing would still count as a change of the data (``data_changes``).
_STANDS = """
SELECT EXISTS (
    SELECT FROM interactions
    WHERE user_key = %(user_key)s AND occurred_at = %(at)s AND track_key = %(track_key)s
      AND (skipped OR NOT %(skipped)s OR source <> %(source)s)
)
"""
_PLAY = """
INSERT INTO interactions AS played
    (user_key, occurred_at, track_key, tie, ms_played, skipped, device, source)
SELECT %(user_key)s, %(at)s, %(track_key)s, coalesce(max(tie) + 1, 0), %(ms_played)s::int,
       %(skipped)s::bool, %(device)s::text, %(source)s::text
FROM interactions WHERE user_key = %(user_key)s AND occurred_at = %(at)s
ON CONFLICT (user_key, occurred_at, track_key) DO UPDATE
SET skipped = true, ms_played = coalesce(excluded.ms_played, played.ms_played)
WHERE excluded.skipped AND played.skipped IS NOT TRUE AND played.source = excluded.source
"""
_SAID = """
INSERT INTO feedback AS said (user_key, track_key, occurred_at, kind)
VALUES (%(user_key)s, %(track_key)s, %(at)s, %(kind)s)
ON CONFLICT (user_key, track_key, occurred_at) DO UPDATE SET kind = excluded.kind
WHERE said.kind <> excluded.kind
"""


@dataclass(frozen=True, slots=True)
class Event:
    """What a listener did with a track; outside ids.

    Attributes:
        kind: ``listen`` and ``skip`` are plays; ``like`` and ``dislike`` are words on a track, of
            which the newest counts.
        occurred_at: with its time zone; None is now.
        ms_played: milliseconds heard, of a play; None where it is not known.
        device: of a play; None where it is not known.
    """

    user_id: str
    track_id: str
    kind: Kind
    occurred_at: datetime | None = None
    ms_played: int | None = None
    device: str | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """What was written.

    Attributes:
        is_new: false if it was known: the same listener, moment and track (and kind of word), and
            no listen that turns out to be a skip.
    """

    occurred_at: datetime
    is_new: bool


async def record(postgres: Postgres, event: Event, now: datetime) -> Recorded:
    """Write an event.

    Args:
        now: when it occurred if it does not say so.

    Raises:
        DataError: the event cannot be taken: its track is not known, its moment is out of bounds,
            or the dataset knows no moments.
        ServingError: Postgres did not answer in time; ask again with the same moment.
    """
    at = now if event.occurred_at is None else event.occurred_at
    if not _FIRST <= at <= datetime.now(UTC) + _FUTURE:
        raise DataError(
            f"occurred_at={at.isoformat()} is before 1970 or more than a day ahead of now"
        )

    async def write(connection: AsyncConnection[Any]) -> bool:
        async with connection.transaction():
            return await _write(connection, event, at)

    try:
        return Recorded(at, await postgres.run(write, WRITE_SECONDS))
    except PartUnavailable as error:
        raise ServingError(
            f"the event may not be written ({error}); send it again with "
            f"occurred_at={at.isoformat()}"
        ) from error
    except (psycopg.errors.CheckViolation, psycopg.DataError) as error:
        why = error.diag.constraint_name or error.diag.message_primary or str(error)
        raise DataError(f"the event cannot be written: {why}") from error
    except psycopg.Error as error:
        raise ServingError(f"the event is not written: {' '.join(str(error).split())}") from error


async def _write(connection: AsyncConnection[Any], event: Event, at: datetime) -> bool:
    values = {"user": event.user_id, "track": event.track_id, "kind": event.kind, "at": at}
    row = await (await connection.execute(_KNOWN, values)).fetchone()
    track_key, is_timed, user_key = row or (None, None, None)
    if track_key is None:
        raise DataError(
            f"track_id={event.track_id!r} is not in this dataset; import its track first, or "
            "correct the id"
        )
    if not is_timed:
        raise DataError("this dataset knows the order of plays only, so that no event fits in")
    if user_key is None:
        created = await (await connection.execute(_NEW_USER, values)).fetchone()
        assert created is not None
        (user_key,) = created
    values |= {"user_key": user_key, "track_key": track_key}
    if event.kind in ("like", "dislike"):
        written = await connection.execute(_SAID, values)
    else:
        values |= {
            "ms_played": event.ms_played,
            "skipped": event.kind == "skip",
            "device": event.device,
            "source": SOURCE,
        }
        stands = await (await connection.execute(_STANDS, values)).fetchone()
        if stands == (True,):
            return False
        written = await connection.execute(_PLAY, values)
    return written.rowcount > 0
