"""From a view's table in Postgres into Redis, each row verified, in memory that does not grow.

For an end ``E`` that is the newest row of every entity among those stamped in ``[E - ttl, E]``,
which is what ``feast materialize`` takes for the same dates, and byte for byte what it writes.
A chunk of rows is written in four steps:

1. Redis is asked for the stamps it holds; rows it has newer ones of are left out. Feast does the
   same, but leaves out equal stamps too: a row computed again after late plays has an equal one.
   What Redis itself says is asked for, not the registry: a run that was killed moved no
   watermark, but did write.
2. One HSET a row. It is atomic, so a reader sees a row as it was or as it is.
3. One HMGET a row reads everything back.
4. The replies are compared, every byte, with what they must be.

In a Redis Cluster each node gets its rows of the chunk, one node after the other.

Only when all chunks of a view were verified does its watermark move. Whatever ends a run before
that, the next one writes the same rows again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import psycopg
import pyarrow as pa
from adbc_driver_manager.dbapi import Error as AdbcError
from psycopg import sql

from musicrec.database.engine import Dataset
from musicrec.database.redis_address import RedisAddress
from musicrec.errors import DatabaseError, FeatureError
from musicrec.features import layout
from musicrec.features.cluster import Nodes, connected
from musicrec.features.connection import Connection
from musicrec.features.tables import STAMP, psycopg_connection
from musicrec.features.views import View
from musicrec.features.writing import Batch, Writing, payload, row_at

#: Rows written and verified at a time: some 3 MB of commands.
CHUNK_ROWS = 8192
#: What Postgres' rows take in memory at a time.
BATCH_BYTES = 4 << 20
#: How long to wait for another run on the same dataset, or for what a killed one left behind.
WAIT_SECONDS = 5

_LATEST = (1 << 63) - 1  # nanoseconds that int64 holds: until 2262, others may write more

#: Told ``(rows done, rows in all)``.
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Written:
    """What became of one view.

    Attributes:
        view: its name.
        end: its rows in Redis are those of this moment.
        rows: written and verified.
        newer: left as they are, because Redis has rows of a later stamp.
        seconds: it took.
    """

    view: str
    end: datetime
    rows: int
    newer: int
    seconds: float


def write(
    dataset: Dataset,
    view: View,
    end: datetime,
    address: RedisAddress,
    on_progress: OnProgress | None = None,
) -> Written:
    """Bring Redis to the state of ``end`` for one view. The watermark is the caller's to move.

    Args:
        dataset: its name is Feast's project.
        view: one whose table is there.
        end: the end of a window.
        address: of Redis.

    Raises:
        DatabaseError: Postgres or Redis is lost or refuses.
        FeatureError: Redis does not hold what was written.
    """
    began = time.monotonic()
    writing = Writing(view, dataset.name)
    done = newer = 0
    with connected(address) as nodes, closing(_chunks(dataset, view, end)) as chunks:
        for rows, total in chunks:
            for redis, batch in _parts(nodes, writing.batch(rows)):
                kept = _not_newer(redis, writing, batch)
                if len(kept.rows):
                    _write(redis, writing, kept)
                newer += len(batch.rows) - len(kept.rows)
            done += len(rows)
            if on_progress:
                on_progress(done, total)
    return Written(view.name, end, done - newer, newer, time.monotonic() - began)


@contextmanager
def alone(dataset: Dataset) -> Iterator[None]:
    """Keep other materializations of this dataset out for a while, wherever they run.

    Raises:
        FeatureError: another one goes on for longer than ``WAIT_SECONDS``.
    """
    name = f"musicrec materialize {dataset.name}"
    with psycopg_connection(dataset, "materialize") as connection:
        # In a transaction, so that it is given back however this ends.
        connection.execute(f"SET LOCAL lock_timeout = '{WAIT_SECONDS}s'")
        try:
            connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (name,))
        except psycopg.errors.LockNotAvailable as error:
            raise FeatureError(
                f"dataset {dataset.name!r} is being materialized by another process; wait for it "
                "to end, or stop it"
            ) from error
        yield


def _chunks(
    dataset: Dataset, view: View, end: datetime
) -> Generator[tuple[pa.RecordBatch, int], None, None]:
    """The rows of ``end`` in chunks, each with the number of all rows; one state of the table."""
    newest, counted = _queries(view, end)
    done = total = 0
    try:
        with dataset.adbc() as connection, connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            cursor.execute(counted)
            (total,) = cursor.fetchone() or (0,)
            hint = {"adbc.postgresql.batch_size_hint_bytes": str(BATCH_BYTES)}
            cursor.adbc_statement.set_options(**hint)
            cursor.execute(newest)
            for batch in cursor.fetch_record_batch():
                for start in range(0, len(batch), CHUNK_ROWS):
                    chunk = batch.slice(start, CHUNK_ROWS)
                    done += len(chunk)
                    yield chunk, total
    except (AdbcError, OSError) as error:
        raise dataset.address.failure(error) from error
    if done != total:
        raise DatabaseError(
            f"Postgres at {dataset.address.place} gave {done:,} of {total:,} rows of {view.name}; "
            "run the command again"
        )


def _queries(view: View, end: datetime) -> tuple[str, str]:
    """Each entity's newest row, and how many there are."""
    keys = sql.SQL(", ").join(map(sql.Identifier, view.join_keys))
    names = (*view.join_keys, STAMP, *(feature.name for feature in view.features))
    stamp = sql.Identifier(STAMP)
    until = sql.SQL("{} <= {}").format(stamp, sql.Literal(end))
    if view.ttl is not None:
        until += sql.SQL(" AND {} >= {}").format(stamp, sql.Literal(end - view.ttl))
    source = sql.SQL("FROM {} WHERE {}").format(sql.Identifier(view.name), until)
    newest = sql.SQL("SELECT DISTINCT ON ({keys}) {names} {source} ORDER BY {keys}, {stamp} DESC")
    counted = sql.SQL("SELECT count(*) FROM (SELECT DISTINCT {keys} {source}) AS entity")
    return (
        newest.format(
            keys=keys,
            names=sql.SQL(", ").join(map(sql.Identifier, names)),
            source=source,
            stamp=stamp,
        ).as_string(None),
        counted.format(keys=keys, source=source).as_string(None),
    )


def _parts(nodes: Nodes, batch: Batch) -> Iterator[tuple[Connection, Batch]]:
    """What each node has of a batch."""
    for redis, places in nodes.by_node(payload(batch.stamps)):
        yield redis, batch if places is None else batch.take(places)


def _not_newer(redis: Connection, writing: Writing, batch: Batch) -> Batch:
    """The rows of which Redis has no later stamp."""
    rows = batch.rows
    held = redis.ask(payload(batch.stamps), len(rows))
    times = {stamp: min(layout.nanoseconds(stamp or b""), _LATEST) for stamp in set(held)}
    latest = np.fromiter((times[stamp] for stamp in held), np.int64, len(held))
    is_newer = latest > rows.column(STAMP).cast(pa.int64()).to_numpy() * 1000
    return writing.batch(rows.filter(pa.array(~is_newer))) if is_newer.any() else batch


def _write(redis: Connection, writing: Writing, batch: Batch) -> None:
    redis.ask(payload(batch.writes), len(batch.rows))
    place = redis.differs(payload(batch.reads), payload(batch.expected))
    if place is not None:
        entity = writing.ids(batch.rows, row_at(batch.expected, place))
        raise FeatureError(
            f"Redis at {redis.address.place} does not hold what was just written: "
            f"{writing.view.name} of {entity}; does another process write it, or does Redis evict "
            "keys (maxmemory-policy)?"
        )
