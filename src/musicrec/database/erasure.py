"""Takes a listener out of a dataset's tables, in one transaction, by the list in ``personal``.

Nothing that runs beside it can bring them back. An import keeps in memory whom it knows, so it is
kept out by a lock of its own. Whoever else writes waits at the tables, and then sees the listener
gone. Who began to read the listens before can go on with what it sees, such as a snapshot being
built; ``erase`` waits for the end of that, so that what comes of it can be found.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import psycopg
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from musicrec.database.engine import Dataset
from musicrec.database.personal import PLACES, Place, named_in_line, named_in_path
from musicrec.errors import DatabaseError

#: How long to wait for an import, for other writers, and for those who read the listens before.
IMPORT_SECONDS = 5
WRITERS_SECONDS = 30
READERS_SECONDS = 120

#: A wait at one table; shorter than Postgres takes to see a deadlock and to kill somebody for it.
_LOCK_WAIT = "300ms"

#: What another writer's locks, or tables of features being made anew, look like from here.
_IN_THE_WAY = (
    psycopg.errors.LockNotAvailable,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.UndefinedTable,
)

_OLD_READERS = """
SELECT count(*) FROM pg_locks JOIN pg_stat_activity AS session USING (pid)
WHERE relation = to_regclass('interactions') AND pid <> pg_backend_pid()
  AND age(session.backend_xmin) >= age(CAST(:xid AS xid))
"""


@dataclass(frozen=True, slots=True)
class Traces:
    """What a dataset's tables hold of a listener.

    Attributes:
        counts: rows by the name of the place; 0 where there are none.
        since: when they were first imported; None if the dataset does not know them.
        files: the imports that may have brought them, as they were named.
        models: who was told of their listening: provider, model, and the provider's batch.
    """

    counts: dict[str, int]
    since: datetime | None
    files: list[str]
    models: list[str]


def import_lock(dataset: str) -> str:
    """What imports of a dataset share, and ``erase`` holds alone: the name of an advisory lock."""
    return f"musicrec import {dataset}"


def look(dataset: Dataset, user_id: str) -> Traces:
    """What there is of a listener; one state of all tables.

    Raises:
        DatabaseError: the server is lost or refuses.
    """
    with _failures(dataset), dataset.engine.connect() as connection:
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
        person = _person(connection, user_id)
        counts = {
            place.name: int(
                connection.scalar(
                    text(f"SELECT count(*) FROM {place.table} WHERE {place.rows}"),  # noqa: S608
                    person,
                )
                or 0
            )
            for place in _there(connection)
        }
        since = connection.scalar(
            text("SELECT created_at FROM users WHERE user_id = :user_id"), person
        )
        files = connection.scalars(
            text(
                "SELECT source FROM imports WHERE EXISTS (SELECT FROM interactions AS i"
                " WHERE i.user_key = CAST(:user_key AS bigint) AND i.source = format) ORDER BY 1"
            ),
            person,
        )
        models = connection.scalars(
            text(
                "SELECT concat_ws(' ', provider, model) FROM user_interest_graph"
                " WHERE user_key = CAST(:user_key AS bigint) AND provider <> 'local' UNION "
                "SELECT concat_ws(' ', call.provider, call.model, provider_batch)"
                " FROM graph_calls AS call LEFT JOIN graph_batches USING (batch_id)"
                " WHERE user_key = CAST(:user_key AS bigint) AND call.provider <> 'local'"
                " ORDER BY 1"
            ),
            person,
        )
        return Traces(counts, since, list(files), list(models))


def erase(dataset: Dataset, user_id: str) -> dict[str, int]:
    """Take a listener out of every table, or out of none; done twice, it changes nothing.

    Returns:
        Rows deleted or emptied, by the name of the place.

    Raises:
        DatabaseError: an import runs, others write all the time, or the server is lost or
            refuses: nothing was erased. Or the tables are rid of the listener, but somebody still
            reads the listens of before.
    """
    deadline = time.monotonic() + WRITERS_SECONDS
    while True:
        try:
            with _failures(dataset), dataset.engine.begin() as connection:
                erased, xid = _erase(connection, dataset, user_id)
            break
        except _Busy as busy:
            if time.monotonic() > deadline:
                raise DatabaseError(
                    f"others have been writing into dataset {dataset.name!r} for "
                    f"{WRITERS_SECONDS} s; nothing was erased, run the command again when they "
                    "are done"
                ) from busy
            time.sleep(0.05)
    with _failures(dataset):
        _wait_for_old_readers(dataset, xid)
        _vacuum(dataset, erased)
    return erased


class _Busy(Exception):
    """A lock was not to be had in time."""


def _person(connection: Connection, user_id: str) -> dict[str, object]:
    key = connection.scalar(
        text("SELECT user_key FROM users WHERE user_id = :user_id"), {"user_id": user_id}
    )
    return {
        "user_id": user_id,
        "user_key": key,
        "named": named_in_line(user_id),
        "in_path": named_in_path(user_id),
    }


def _there(connection: Connection) -> list[Place]:
    """The places whose tables are there; those of features come with the first feature."""
    return [p for p in PLACES if connection.scalar(text(f"SELECT to_regclass('{p.table}')"))]


def _erase(connection: Connection, dataset: Dataset, user_id: str) -> tuple[dict[str, int], str]:
    _keep_imports_out(connection, dataset)
    try:
        _lock(connection, user_id)
        erased = _erase_rows(connection, user_id)
    except DBAPIError as error:
        if isinstance(error.orig, _IN_THE_WAY):
            raise _Busy from error
        raise
    return erased, str(connection.scalar(text("SELECT pg_current_xact_id()::xid::text")))


def _lock(connection: Connection, user_id: str) -> None:
    """Keep every writer out; readers go on."""
    connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_WAIT}'"))
    # The row first: whoever stores an interest graph locks it first, and then writes into tables.
    connection.execute(
        text("SELECT FROM users WHERE user_id = :user_id FOR UPDATE"), {"user_id": user_id}
    )
    # Then as an import locks them, users and listens first.
    tables = ["users", "interactions", *(place.table for place in _there(connection))]
    connection.execute(
        text(f"LOCK TABLE {', '.join(dict.fromkeys(tables))} IN SHARE ROW EXCLUSIVE MODE")
    )


def _erase_rows(connection: Connection, user_id: str) -> dict[str, int]:
    person = _person(connection, user_id)
    erased = {}
    for place in _there(connection):
        action = f"DELETE FROM {place.table}"  # noqa: S608
        if place.becomes:
            action = f"UPDATE {place.table} SET {place.becomes}"  # noqa: S608
        # Not even an empty statement if there is nothing: it would count as a change of the data.
        query = f"SELECT EXISTS (SELECT FROM {place.table} WHERE {place.rows})"  # noqa: S608
        if connection.scalar(text(query), person):
            change = text(f"{action} WHERE {place.rows}")
            erased[place.name] = connection.execute(change, person).rowcount
        else:
            erased[place.name] = 0
    return erased


def _keep_imports_out(connection: Connection, dataset: Dataset) -> None:
    connection.execute(text(f"SET LOCAL lock_timeout = '{IMPORT_SECONDS}s'"))
    try:
        connection.execute(
            text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"),
            {"name": import_lock(dataset.name)},
        )
    except DBAPIError as error:
        if not isinstance(error.orig, psycopg.errors.LockNotAvailable):
            raise
        raise DatabaseError(
            f"an import into dataset {dataset.name!r} is running and would bring the listener "
            "back; nothing was erased, run the command again when it has ended"
        ) from error


def _wait_for_old_readers(dataset: Dataset, xid: str) -> None:
    deadline = time.monotonic() + READERS_SECONDS
    with dataset.engine.connect() as connection:
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        while connection.scalar(text(_OLD_READERS), {"xid": xid}):
            if time.monotonic() > deadline:
                raise DatabaseError(
                    f"the tables of dataset {dataset.name!r} are rid of the listener, but another "
                    f"process has been reading the listens of before for {READERS_SECONDS} s and "
                    "may write them elsewhere; run the command again when it has ended"
                )
            time.sleep(0.05)


def _vacuum(dataset: Dataset, erased: dict[str, int]) -> None:
    """Let go of the dead rows' room, and mark pages all-visible: the covering index needs it."""
    tables = dict.fromkeys(place.table for place in PLACES if erased.get(place.name))
    if tables:
        with dataset.engine.connect() as connection:
            connection = connection.execution_options(isolation_level="AUTOCOMMIT")
            connection.execute(text(f"VACUUM (ANALYZE) {', '.join(tables)}"))


@contextmanager
def _failures(dataset: Dataset) -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        cause = error.orig
        state = getattr(cause, "sqlstate", None) or ""
        if not state or state.startswith(("08", "57")):
            raise dataset.address.failure(cause or error) from error
        # Not the server's own detail: it quotes rows.
        said = cause.diag.message_primary if isinstance(cause, psycopg.Error) else None
        raise DatabaseError(
            f"cannot erase a listener at {dataset.address.place}: {said or type(cause).__name__}"
        ) from error
