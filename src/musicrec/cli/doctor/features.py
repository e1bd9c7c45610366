"""Feast: its registry, whether it says what the code says, and how fresh what is in Redis is."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import sqlalchemy
from psycopg import sql

from musicrec.cli.console import spelt
from musicrec.cli.doctor.findings import Asked, Finding, failed
from musicrec.cli.doctor.packages import install_command
from musicrec.cli.doctor.servers import (
    REPLY_SECONDS,
    dataset_names,
    found_postgres,
    found_redis,
    look_inside,
    unseen,
)
from musicrec.database.address import Address
from musicrec.database.engine import Dataset
from musicrec.database.home import location
from musicrec.database.redis_address import RedisAddress
from musicrec.errors import MusicrecError

if TYPE_CHECKING:
    from feast import FeatureStore

    from musicrec.features.views import View

#: Features are materialized daily; what is later than this has missed a day.
LATE = timedelta(hours=48)

#: Rows of which at least one must be in Redis where the registry says that all are.
_SAMPLE = 20


def feast(asked: Asked) -> Iterator[Finding]:
    if importlib.util.find_spec("feast") is None:
        said = "not installed: no features, no Redis"
        yield Finding("Feast", "not set", said, install_command("features"))
        return
    server, redis = found_postgres(asked), found_redis(asked)
    if not isinstance(server, Address):
        yield unseen("Feast", server, "Postgres")
        return
    for name in dataset_names(asked, server):
        check = f"features {name}"
        try:
            yield from _of_dataset(asked, name, server, redis)
        except MusicrecError as error:
            yield failed(check, error)
        except psycopg.Error as error:
            yield failed(check, server.failure(error))


def _of_dataset(
    asked: Asked, name: str, server: Address, redis: RedisAddress | BaseException | None
) -> Iterator[Finding]:
    check = f"features {name}"
    materialize = spelt("materialize", "--all", f"dataset={name}")
    with look_inside(server, name) as connection:
        (timed,) = connection.execute("SELECT timed FROM dataset_info").fetchone() or (None,)
    if not timed:
        yield Finding(check, "not set", "features need listens with times")
        return
    registry = os.environ.get("FEAST_REGISTRY") or str(location() / "feast" / f"{name}.db")
    # To open the store makes the home, and to read a missing registry makes an empty one.
    if not location().is_dir() or ("://" not in registry and not Path(registry).exists()):
        said = f"there is no registry {registry}: features were never materialized here"
        yield Finding(check, "not set", said, materialize)
        return
    if not isinstance(redis, RedisAddress):
        yield unseen(check, redis, "Redis")  # type: ignore[arg-type]
        return
    from musicrec.features import repository

    with _dataset(name, server) as dataset:
        store = repository.open_store(dataset, redis)
        repository.check_current(store)
        columns = repository.service_columns(store)
        yield Finding(check, "ok", f"registry applied, {len(columns)} views as the code says")
        yield from _freshness(asked, name, server, redis, store, materialize)


def _dataset(name: str, server: Address) -> Dataset:
    """Without its migrations, which ``open_dataset`` would apply."""
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://", creator=lambda: look_inside(server, name)
    )
    return Dataset(name, engine, server)


def _freshness(
    asked: Asked,
    name: str,
    server: Address,
    redis: RedisAddress,
    store: FeatureStore,
    materialize: str,
) -> Iterator[Finding]:
    from musicrec.features import repository
    from musicrec.features.views import STORED

    check = f"freshness {name}"
    marks = {view: repository.watermark(store, view.name) for view in STORED}
    if never := [view.name for view, mark in marks.items() if mark is None]:
        said = f"never written to Redis: {', '.join(never)}"
        yield Finding(check, "warning", said, materialize)
        return
    with look_inside(server, name) as connection:
        last = _last_play(connection)
        lost = _lost(connection, name, redis, {v: m for v, m in marks.items() if m})
    if lost:
        said = f"the registry says that Redis holds {lost}, and it does not: was it emptied?"
        yield Finding(check, "broken", said, materialize)
        return
    now = asked.as_of or datetime.now(UTC)
    due = min(now, last) if last else now
    late = {view.name: due - mark for view, mark in marks.items() if mark and view.window}
    oldest = min(mark for view, mark in marks.items() if mark and view.window)
    said = f"up to {oldest:%Y-%m-%d %H:%M} UTC"
    worst = max(late.values())
    if worst > LATE:
        behind = sum(delay > LATE for delay in late.values())
        said += f"; {behind} of {len(late)} windowed views are {worst.days} days behind the listens"
        yield Finding(check, "warning", said, materialize)
    elif expired := [v.name for v, mark in marks.items() if v.ttl and mark and now > mark + v.ttl]:
        said += f"; outlived at {now:%Y-%m-%d}, so answered as unknown: {', '.join(expired)}"
        fix = f"{materialize}, or serve with as_of= a moment of the listens"
        yield Finding(check, "warning", said, fix)
    else:
        yield Finding(check, "ok", said)


def _last_play(connection: psycopg.Connection[Any]) -> datetime | None:
    """None where it takes too long to find, so that now is what counts."""
    try:
        row = connection.execute("SELECT max(occurred_at) FROM interactions").fetchone()
    except psycopg.errors.QueryCanceled:
        connection.rollback()
        return None
    return row[0] if row else None


def _lost(
    connection: psycopg.Connection[Any],
    name: str,
    redis: RedisAddress,
    marks: dict[View, datetime],
) -> str | None:
    """A view of which not one of some rows is in Redis."""
    if redis.is_cluster:  # its keys are all over its nodes
        return None
    from musicrec.features import layout
    from musicrec.features.connection import Connection
    from musicrec.features.resp import encoded
    from musicrec.features.tables import STAMP
    from musicrec.features.views import ALWAYS

    with Connection(redis, REPLY_SECONDS) as wire:
        for view, mark in marks.items():
            keys = sorted(view.join_keys)
            rows = connection.execute(
                sql.SQL("SELECT {} FROM {} WHERE {} = %s LIMIT {}").format(
                    sql.SQL(", ").join(map(sql.Identifier, keys)),
                    sql.Identifier(view.name),
                    sql.Identifier(STAMP),
                    _SAMPLE,
                ),
                (mark if view.window else ALWAYS,),
            ).fetchall()
            if not rows:
                continue
            prefix = layout.key_prefix(view.join_keys)
            names = [layout.key(prefix, ids, name.encode()) for ids in rows]
            stamp = layout.timestamp_field(view.name)
            asked = b"".join(encoded(b"HEXISTS", each, stamp) for each in names)
            if not any(wire.ask(asked, len(names))):
                return view.name
    return None
