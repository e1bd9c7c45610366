"""What a listener's session was at each play: the context that training gives its rows."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

    from musicrec.database.engine import Dataset

#: A play this long after the listener's last one begins a new session.
GAP = timedelta(minutes=30)

# `running` goes back from $1, play by play, for as long as a session runs; only those few listen.
_SESSIONS = """
WITH RECURSIVE running (user_key, at) AS (
    SELECT user_key, $1::timestamptz FROM users
    UNION ALL
    SELECT running.user_key, earlier.at
    FROM running CROSS JOIN LATERAL (
        SELECT max(occurred_at) AS at FROM interactions AS i
        WHERE i.user_key = running.user_key
          AND i.occurred_at < running.at AND i.occurred_at > running.at - make_interval(secs => $3)
    ) AS earlier
    WHERE earlier.at IS NOT NULL
), started AS (
    SELECT user_key, min(at) AS at FROM running GROUP BY user_key
), plays AS (
    SELECT i.*, coalesce(
               i.occurred_at - lag(i.occurred_at) OVER listener >= make_interval(secs => $3), true
           ) AS begins
    FROM interactions AS i JOIN started USING (user_key)
    WHERE i.occurred_at >= started.at AND i.occurred_at < $2
    WINDOW listener AS (PARTITION BY i.user_key ORDER BY i.occurred_at, i.tie)
), sessions AS (
    SELECT *, count(*) FILTER (WHERE begins) OVER listener AS session FROM plays
    WINDOW listener AS (PARTITION BY user_key ORDER BY occurred_at, tie)
), counted AS (
    SELECT *, row_number() OVER (
               PARTITION BY user_key, session ORDER BY occurred_at, tie) - 1 AS session_plays,
           (row_number() OVER (
               PARTITION BY user_key, session, track_key ORDER BY occurred_at, tie) > 1)::int
           AS in_session
    FROM sessions
)
SELECT user_id, track_id, occurred_at,
       extract(hour FROM occurred_at AT TIME ZONE 'UTC')::bigint AS hour,
       extract(isodow FROM occurred_at AT TIME ZONE 'UTC')::bigint - 1 AS weekday,
       device, session_plays, in_session::bigint AS in_session
FROM counted JOIN users USING (user_key) JOIN tracks USING (track_key)
WHERE occurred_at >= $1
ORDER BY user_key, occurred_at, tie
"""


def session_context(dataset: Dataset, since: datetime, until: datetime) -> pl.DataFrame:
    """Every play from ``since`` until before ``until``, with the moment that it was made in.

    A session is a listener's plays of which none follows the last after ``GAP`` or more, however
    long before ``since`` it began. Plays at the same time are in the order of ``tie``.

    Returns:
        ``user_id``, ``track_id``, ``occurred_at``, and what ``context.REQUEST`` names: ``hour``
        and ``weekday`` on the clock of UTC, for want of the listener's own; ``session_plays``
        earlier in the session, and whether one of them, ``in_session``, was of this track. By
        listener, in order.

    Raises:
        DatabaseError: the server cannot be reached, or is lost.
    """
    import polars as pl

    # Here, because who answers from a bundle alone asks for GAP and for no database.
    from musicrec.features import tables

    with tables.reading(dataset) as cursor:
        cursor.execute(_SESSIONS, parameters=(since, until, GAP.total_seconds()))
        return pl.DataFrame(cursor.fetch_arrow_table())
