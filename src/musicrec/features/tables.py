"""The tables that hold the rows of the stored views, and the record of what was computed.

They stand in the dataset's schema, one a view and of its name. No migration knows them: their
rows can be computed again from the listens at any time, so they are made from ``views`` when they
are first needed, and anew when a view has changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from adbc_driver_manager.dbapi import Cursor
from adbc_driver_manager.dbapi import Error as AdbcError
from psycopg import sql
from sqlalchemy.exc import DBAPIError

from musicrec.database.engine import Dataset
from musicrec.errors import DatabaseError
from musicrec.features.views import View

STAMP = "event_timestamp"
COMPUTATIONS = "feature_computations"

_WINDOWED = sql.SQL("""
INSERT INTO {table} ({stamp}, {ids}, {features})
SELECT %(window_end)s, {ids}, {features}
FROM (
    SELECT {keys}, {aggregates}
    FROM interactions AS listen
    LEFT JOIN LATERAL (
        SELECT listen.user_key, listen.occurred_at, listen.ms_played, listen.skipped,
               listen.device, track.*
        FROM tracks AS track
        WHERE track.track_key = listen.track_key AND listen.occurred_at >= %(window_start)s
    ) AS play ON true
    WHERE listen.occurred_at >= %(closing_start)s AND listen.occurred_at < %(window_end)s
    GROUP BY {keys}
) AS entity
{joins}
ORDER BY {ids}
""")

_ATTRIBUTES = sql.SQL("""
INSERT INTO {table} ({stamp}, {ids}, {features})
SELECT %(window_end)s, {ids}, {aggregates} FROM tracks AS track ORDER BY {ids}
""")

_KEYS = {
    "user": (sql.SQL("listen.user_key"), sql.SQL("JOIN users USING (user_key)")),
    "track": (sql.SQL("listen.track_key"), sql.SQL("JOIN tracks USING (track_key)")),
}

_CREATE_COMPUTATIONS = sql.SQL("""
CREATE TABLE IF NOT EXISTS {} (
    view text,
    window_end timestamptz,
    definition text NOT NULL,
    cadence interval NOT NULL,
    data_state text NOT NULL,
    num_rows bigint NOT NULL,
    computed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (view, window_end)
)
""").format(sql.Identifier(COMPUTATIONS))

_COLUMNS = """
SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""


def insertion(view: View) -> sql.Composed:
    """The statement that computes a view's rows of one end.

    The plays are read and aggregated by their surrogate keys; outside ids come last. It takes
    ``window_end``, ``window_start`` and ``closing_start``: entities with a play from
    ``closing_start`` on have a row, and those from ``window_start`` on are in it.
    """
    keys, joins = zip(*(_KEYS[entity] for entity in view.entities), strict=True)
    template = _ATTRIBUTES if view.window is None else _WINDOWED
    return template.format(
        table=sql.Identifier(view.name),
        stamp=sql.Identifier(STAMP),
        ids=_listed(sql.Identifier(name) for name in view.join_keys),
        features=_listed(sql.Identifier(feature.name) for feature in view.features),
        aggregates=_listed(
            sql.SQL("({})::real AS {}").format(sql.SQL(feature.sql), sql.Identifier(feature.name))
            for feature in view.features
        ),
        keys=_listed(keys),
        joins=sql.SQL(" ").join(joins),
    )


def definition(view: View) -> str:
    """Names how a view's rows are computed: another statement or window has another name."""
    text = f"{insertion(view).as_string(None)} {view.window}"
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def make(connection: psycopg.Connection[Any], dataset: str, view: View) -> None:
    """Make what ``view`` is computed into, unless it is there; a transaction of its own.

    A table of other columns, or with rows by another definition, is dropped with all its rows:
    they are not what the view says any more. Processes that come at the same moment wait for
    each other.
    """
    with connection.transaction():
        connection.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))",
            (f"musicrec features of {dataset}",),
        )
        connection.execute(_CREATE_COMPUTATIONS)
        _index_by_time(connection)
        if not _is_current(connection, view):
            _make_anew(connection, view)


@contextmanager
def psycopg_connection(dataset: Dataset, action: str) -> Iterator[psycopg.Connection[Any]]:
    """A pooled connection, as psycopg's.

    Raises:
        DatabaseError: whatever the server refuses in the body, as what came of ``action``.
    """
    try:
        pooled = dataset.engine.raw_connection()
        try:
            connection = pooled.driver_connection
            assert isinstance(connection, psycopg.Connection)
            yield connection
        finally:
            pooled.close()
    except (psycopg.Error, DBAPIError) as error:
        raise _failure(dataset, action, getattr(error, "orig", None) or error) from error


@contextmanager
def reading(dataset: Dataset) -> Iterator[Cursor]:
    """A cursor in one transaction that sees one state of all tables, and leaves nothing behind.

    Raises:
        DatabaseError: the server cannot be reached, or what the body asked of it failed.
    """
    try:
        with dataset.adbc() as connection, connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            yield cursor
    # ADBC raises a plain OSError for a connection that breaks in the middle of a result.
    except (AdbcError, OSError) as error:
        raise _failure(dataset, "read features", error) from error


def _failure(dataset: Dataset, action: str, error: BaseException) -> DatabaseError:
    state = getattr(error, "sqlstate", None) or ""
    if not state or state.startswith(("08", "57")):
        return dataset.address.failure(error)
    reason = " ".join(str(error).split())
    return DatabaseError(f"cannot {action} at {dataset.address.place}: {reason}")


def _is_current(connection: psycopg.Connection[Any], view: View) -> bool:
    columns = connection.execute(_COLUMNS, (view.name,)).fetchall()
    others = connection.execute(
        sql.SQL("SELECT FROM {} WHERE view = %s AND definition <> %s LIMIT 1").format(
            sql.Identifier(COMPUTATIONS)
        ),
        (view.name, definition(view)),
    )
    return columns == _columns(view) and others.fetchone() is None


def _columns(view: View) -> list[tuple[str, str]]:
    return [
        (STAMP, "timestamp with time zone"),
        *((name, "text") for name in view.join_keys),
        *((feature.name, "real") for feature in view.features),
    ]


def _make_anew(connection: psycopg.Connection[Any], view: View) -> None:
    table = sql.Identifier(view.name)
    connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(table))
    connection.execute(
        sql.SQL("DELETE FROM {} WHERE view = %s").format(sql.Identifier(COMPUTATIONS)),
        (view.name,),
    )
    columns = (
        sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind))
        for name, kind in _columns(view)
    )
    keys = (sql.Identifier(name) for name in (STAMP, *view.join_keys))
    connection.execute(
        sql.SQL("CREATE TABLE {} ({}, PRIMARY KEY ({}))").format(
            table, _listed(columns), _listed(keys)
        )
    )


def _index_by_time(connection: psycopg.Connection[Any]) -> None:
    """A window's plays by their time, whoever played them, without a look at the table.

    Without it each end reads an index of all plays there are: three times slower at 10 M plays of
    a year, and slower with each year. It covers, since the planner rightly leaves one that does
    not: plays lie in the order of the imported file, often one listener after the other, so that
    a window's are all over the table; for the same reason BRIN finds nothing. Not a migration:
    only a dataset that has features pays for it.
    """
    # Looked up first: CREATE INDEX IF NOT EXISTS waits for an import under way even if it exists.
    row = connection.execute("SELECT to_regclass('interactions_by_time') IS NULL").fetchone()
    if row and row[0]:
        connection.execute(
            "CREATE INDEX interactions_by_time ON interactions (occurred_at)"
            " INCLUDE (user_key, track_key, ms_played, skipped)"
        )


def _listed(parts: Iterable[sql.Composable]) -> sql.Composed:
    return sql.SQL(", ").join(parts)
