"""Where Postgres is: ``DATABASE_URL``, or else the embedded server.

The URL is read by libpq itself and handed on as libpq's ``name='value'`` pairs, to psycopg and to
ADBC alike. Rendering it through another library would lose sockets in folders with spaces.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from musicrec.database import cluster, embedded
from musicrec.errors import DatabaseError

#: Seconds to wait for a server that does not answer at all.
CONNECT_SECONDS = 10

#: The oldest server that knows everything the migrations use (``gen_random_uuid``).
OLDEST_VERSION = 13

_SCHEME = re.compile(r"^postgres(ql)?(\+psycopg)?://")


@dataclass(frozen=True, slots=True)
class Address:
    """One database of one server.

    Attributes:
        place: ``host:port/database`` for messages; never more than that.
        is_embedded: whether the server is the project's own.
        parameters: libpq's, the password among them, so they stay out of the repr.
    """

    place: str
    is_embedded: bool
    parameters: dict[str, str] = field(repr=False)

    def conninfo(self, **more: str) -> str:
        """The libpq connection string, with ``more`` parameters. Holds the password."""
        return make_conninfo("", **{**self.parameters, **more})

    def connect(self, **more: str) -> psycopg.Connection:
        """A new connection, autocommit off.

        Raises:
            DatabaseError: the server cannot be reached, refuses, or is too old.
        """
        try:
            connection = psycopg.connect(self.conninfo(**more))
        except psycopg.Error as error:
            raise self.failure(error) from error
        try:
            self._check(connection)
        except DatabaseError:
            connection.close()
            raise
        return connection

    def failure(self, error: BaseException) -> DatabaseError:
        """What a failed or lost connection means, in one line and without the password."""
        reason = " ".join(str(error).split())
        if password := self.parameters.get("password"):
            reason = reason.replace(password, "***")
        way_out = (
            "run the command again"
            if self.is_embedded
            else "correct DATABASE_URL, or unset it to use the embedded server"
        )
        return DatabaseError(f"no connection to Postgres at {self.place}: {reason}; {way_out}")

    def _check(self, connection: psycopg.Connection) -> None:
        version = connection.info.server_version // 10000
        if version < OLDEST_VERSION:
            raise DatabaseError(
                f"Postgres at {self.place} is version {version}; musicrec needs "
                f"{OLDEST_VERSION} or newer: correct DATABASE_URL, or unset it to use the "
                "embedded server"
            )
        encoding = connection.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            raise DatabaseError(
                f"the database at {self.place} has encoding {encoding}; musicrec needs UTF8: "
                "create one with `CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0`"
            )


def address() -> Address:
    """``DATABASE_URL`` where it is set, and then nothing is started; else the embedded server.

    Raises:
        DatabaseError: the URL cannot be read, or the embedded server cannot be started.
    """
    url = os.environ.get("DATABASE_URL", "").strip()
    return _from_url(url) if url else _embedded(embedded.running_server())


def address_if_running() -> Address | None:
    """As ``address``, but None instead of starting the embedded server.

    Raises:
        DatabaseError: the URL cannot be read.
    """
    url = os.environ.get("DATABASE_URL", "").strip()
    if url:
        return _from_url(url)
    folder = embedded.server_if_running()
    return None if folder is None else _embedded(folder)


def _embedded(folder: Path) -> Address:
    where = {"host": str(folder), "port": str(cluster.PORT)}
    who = {"user": cluster.USER, "dbname": cluster.DATABASE}
    return Address("the embedded server", True, {**where, **who})


def _from_url(url: str) -> Address:
    if not _SCHEME.match(url):
        raise DatabaseError(
            f"DATABASE_URL begins with {url.split(':', 1)[0][:20]!r}; musicrec needs "
            "postgresql://user:password@host:port/database"
        )
    try:
        # No message of libpq's is shown here: it quotes the piece it stumbled over, and where a
        # password was not escaped, that piece is part of the password.
        read = conninfo_to_dict(_SCHEME.sub("postgresql://", url, count=1))
    except psycopg.Error:
        raise _unreadable() from None
    parameters = {name: str(value) for name, value in read.items() if value is not None}
    host, port = parameters.get("host", ""), parameters.get("port", "")
    database = parameters.get("dbname", "")
    if "@" in host + port + database or not re.fullmatch(r"[\d,]*", port):
        raise _unreadable()
    parameters.setdefault("connect_timeout", str(CONNECT_SECONDS))
    parameters.setdefault("fallback_application_name", "musicrec")
    place = f"{host or 'the local socket'}:{port or '5432'}/{database or '(your user name)'}"
    return Address(place, False, parameters)


def _unreadable() -> DatabaseError:
    return DatabaseError(
        "DATABASE_URL cannot be read; it looks like postgresql://user:password@host:port/database, "
        "where @ : / ? # % in the password are written %40 %3A %2F %3F %23 %25"
    )


def search_path_option(schema: str) -> str:
    """libpq ``options`` that make ``schema`` the only one a session sees, its clock UTC.

    Part of the connection's start and not a later SET: no reset and no rollback undoes it, and a
    pooler that would mix sessions refuses it at once.
    """
    return f"-c search_path={schema} -c timezone=UTC"
