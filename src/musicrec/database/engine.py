"""The door to Postgres: datasets, each a schema of its own."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import adbc_driver_postgresql.dbapi
import psycopg
import sqlalchemy
from adbc_driver_manager.dbapi import Connection as AdbcConnection
from psycopg import sql

from musicrec.database import revisions
from musicrec.database.address import Address, address, search_path_option
from musicrec.errors import DatabaseError, nearest

_LEGAL_NAME = re.compile(r"[a-z][a-z0-9_]{0,47}")
_RESERVED_NAME = re.compile(r"pg_.*|public|information_schema")

#: Seconds to wait for others to let go of a dataset that is to be dropped.
DROP_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Dataset:
    """An open dataset; a context manager that closes it.

    Every connection sees the dataset's schema and nothing else (``search_path``), and speaks UTC.

    Attributes:
        name: the schema's name.
        engine: SQLAlchemy over psycopg. A connection that cannot be made is a ``DatabaseError``.
        address: the server; for messages ``address.place`` and ``address.failure``.
    """

    name: str
    engine: sqlalchemy.Engine = field(repr=False)
    address: Address

    def adbc(self) -> AdbcConnection:
        """A new ADBC connection, autocommit off: for record batches in and out.

        Raises:
            DatabaseError: the server cannot be reached or refuses.
        """
        conninfo = self.address.conninfo(options=_options(self.address, self.name))
        try:
            return adbc_driver_postgresql.dbapi.connect(conninfo, autocommit=False)
        except (adbc_driver_postgresql.dbapi.Error, OSError) as error:
            raise self.address.failure(error) from error

    def close(self) -> None:
        """Close the pooled connections. The embedded server stays while this process lives."""
        self.engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_dataset(name: str, *, create: bool = False) -> Dataset:
    """Open a dataset, after applying the migrations it lacks.

    Args:
        name: of the dataset: a lower-case letter, then letters, digits and ``_``, 48 at most.
        create: make the dataset if there is none of that name.

    Raises:
        DatabaseError: the name is not legal, there is no such dataset, it was written by a newer
            musicrec, the schema of that name holds something else, or the server fails.
    """
    _check_name(name)
    server = address()
    options = _options(server, name)
    try:
        with server.connect(options=options) as connection:
            revision = revisions.current(connection, name)
            if revision is None and not create:
                raise _missing(name, names_in(connection), server)
        if revision != revisions.known()[-1]:
            revisions.upgrade(server, name, options)
    except (psycopg.Error, sqlalchemy.exc.DBAPIError) as error:
        raise _refused(f"open dataset {name!r}", server, error) from error
    return _dataset(name, server)


def opened_dataset(name: str) -> Dataset:
    """A dataset that another process has just opened: the server is not asked, and may be away.

    Raises:
        DatabaseError: the name is not legal, or there is no telling where the server is.
    """
    _check_name(name)
    return _dataset(name, address())


def _dataset(name: str, server: Address) -> Dataset:
    options = _options(server, name)
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://",
        creator=lambda: server.connect(options=options),
        pool_pre_ping=True,
    )
    return Dataset(name, engine, server)


def dataset_names() -> list[str]:
    """Every dataset of the server, sorted."""
    with address().connect() as connection:
        return names_in(connection)


def drop_dataset(name: str) -> None:
    """Delete a dataset and all its listens.

    Raises:
        DatabaseError: there is no such dataset, or others still use it after ``DROP_SECONDS``.
    """
    _check_name(name)
    server = address()
    with server.connect() as connection:
        names = names_in(connection)
        if name not in names:
            raise _missing(name, names, server)
        try:
            connection.execute(f"SET lock_timeout = '{DROP_SECONDS}s'")
            connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(name)))
        except psycopg.Error as error:
            raise _refused(f"drop dataset {name!r}", server, error) from error


def _check_name(name: str) -> None:
    if _LEGAL_NAME.fullmatch(name) and not _RESERVED_NAME.fullmatch(name):
        return
    raise DatabaseError(
        f"dataset {name!r} is no legal name: a lower-case letter, then letters, digits and _, "
        f"48 at most, no name of Postgres' own; for example {_legal(name)!r}"
    )


def _legal(name: str) -> str:
    letters = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:40].rstrip("_")
    if not letters:
        return "mine"
    plain = bool(_LEGAL_NAME.fullmatch(letters)) and not _RESERVED_NAME.fullmatch(letters)
    return letters if plain else f"my_{letters}"


def _options(server: Address, name: str) -> str:
    return f"{server.parameters.get('options', '')} {search_path_option(name)}".strip()


def names_in(connection: psycopg.Connection[Any]) -> list[str]:
    """Every dataset of the connection's server, sorted."""
    rows = connection.execute(
        "SELECT n.nspname FROM pg_namespace n"
        " WHERE EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid AND relname = %s)"
        " AND EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid AND relname = %s)"
        " ORDER BY n.nspname",
        ("dataset_info", revisions.VERSION_TABLE),
    )
    return [row[0] for row in rows]


def _missing(name: str, names: list[str], server: Address) -> DatabaseError:
    known = ", ".join(names) or "none yet"
    return DatabaseError(
        f"no dataset {name!r} at {server.place} (there are: {known}){nearest(name, names)}; import "
        f"one with `python scripts/import_interactions.py data=… dataset={name}`"
    )


def _refused(action: str, server: Address, error: Exception) -> DatabaseError:
    cause = getattr(error, "orig", error)
    detail = cause.diag.message_primary if isinstance(cause, psycopg.Error) else None
    reason = " ".join((detail or str(cause)).split())
    return DatabaseError(f"cannot {action} at {server.place}: {reason}")
