"""From Postgres into the snapshot that training maps: one ordered read, in record batches.

The read runs over the covering index in one repeatable-read transaction, so it sees one state of
the data from the count it starts with to the last row. Memory holds one record batch and two
arrays by key, never the interactions.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from adbc_driver_manager.dbapi import Error as AdbcError
from numpy.lib.format import open_memmap

from musicrec.database.engine import Dataset
from musicrec.errors import DatabaseError, DataError
from musicrec.interactions.snapshot import Snapshot, replaced_when_whole, write_description

BATCH_BYTES = 8 << 20

_STATE = """
SELECT dataset_id::text, timed, (SELECT count(*) FROM interactions),
       (SELECT count(*) FROM data_changes),
       (SELECT coalesce(max(change_id), 0) FROM data_changes),
       greatest((SELECT max(track_key) FROM tracks), (SELECT max(track_key) FROM interactions), 0)
FROM dataset_info
"""
_INTERACTIONS = """
SELECT user_key, track_key, (extract(epoch FROM occurred_at) * 1000000)::bigint
FROM interactions ORDER BY user_key, occurred_at, tie
"""
_TRACKS = "SELECT track_key, track_id, title, artist FROM tracks ORDER BY track_key"
_USERS = "SELECT user_key, user_id FROM users ORDER BY user_key"

OnProgress = Callable[[int, int], None]


class _State(NamedTuple):
    """What the dataset is and holds, as this transaction sees it."""

    dataset_id: str
    timed: bool | None
    num_interactions: int
    changes: int
    last_change: int
    highest_track_key: int


def snapshot(dataset: Dataset, folder: Path, on_progress: OnProgress | None = None) -> Snapshot:
    """The snapshot of a dataset's present state, built if there is none yet.

    Args:
        dataset: an opened dataset.
        folder: where snapshots live; this one gets a sub-folder named by dataset and state.
        on_progress: told ``(rows read, rows in all)`` while building.

    Raises:
        DataError: the dataset holds no interactions.
        DatabaseError: the server refuses, the connection was lost, or fewer rows came than were
            counted; nothing is left behind, running again starts over.
    """
    try:
        with dataset.adbc() as connection, connection.cursor() as cursor:
            return _snapshot(cursor, dataset.name, folder, on_progress)
    except (AdbcError, ConnectionError) as error:
        raise dataset.address.failure(error) from error


def _snapshot(cursor: Any, name: str, folder: Path, on_progress: OnProgress | None) -> Snapshot:
    cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    state = _state(cursor)
    if not state.num_interactions:
        raise DataError(
            f"dataset {name!r} holds no listens; import some with "
            f"scripts/import_interactions.py dataset={name}"
        )
    place = folder / f"{name}-{_name(state)}"
    if place.is_dir():
        try:
            return Snapshot.open(place)
        except DataError:  # a disk or a person has damaged it; Postgres has it all
            shutil.rmtree(place)
    with replaced_when_whole(place) as unfinished:
        _write(cursor, name, state, unfinished, on_progress)
    return Snapshot.open(place)


def _state(cursor: Any) -> _State:
    cursor.execute(_STATE)
    return _State(*cursor.fetchone())


def _name(state: _State) -> str:
    """Names the state of the data, so that a snapshot of an older state is never taken for it."""
    return hashlib.blake2b(repr(state).encode(), digest_size=8).hexdigest()


def _write(
    cursor: Any, name: str, state: _State, folder: Path, on_progress: OnProgress | None
) -> None:
    plays, user_keys = _write_arrays(cursor, name, state, folder, on_progress)
    played = np.flatnonzero(plays)
    tracks = _rows_of(cursor, _TRACKS, played)
    users = _rows_of(cursor, _USERS, user_keys)
    if len(tracks) != len(played) or len(users) != len(user_keys):
        raise DataError(
            f"dataset {name!r} has interactions whose track or user is missing "
            f"({len(played) - len(tracks)} tracks, {len(user_keys) - len(users)} users); "
            "import the file again"
        )
    _renumber(folder, plays)
    write_description(
        folder,
        dataset=name,
        timed=bool(state.timed),
        tracks=tracks.drop_columns("track_key").append_column("plays", pa.array(plays[played])),
        user_ids=users["user_id"],
    )


def _write_arrays(
    cursor: Any, name: str, state: _State, folder: Path, on_progress: OnProgress | None
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Stream all interactions; items still hold track keys.

    Returns:
        Plays by track key, and the key of each listener in row order.
    """
    total = state.num_interactions
    items = open_memmap(folder / "items.npy", mode="w+", dtype=np.int32, shape=(total,))
    times = open_memmap(folder / "times.npy", mode="w+", dtype=np.int64, shape=(total,))
    plays = np.zeros(state.highest_track_key + 1, dtype=np.int64)
    key_parts: list[Any] = []
    start_parts: list[Any] = []
    done, last_key = 0, -1
    for batch in _batches(cursor, name, total):
        user_key, track_key, time = (column.to_numpy() for column in batch.columns)
        rows = slice(done, done + len(batch))
        if rows.stop > total:
            break
        items[rows], times[rows] = track_key, time
        plays += np.bincount(track_key, minlength=len(plays))
        first = np.flatnonzero(np.diff(user_key, prepend=last_key))
        key_parts.append(user_key[first])
        start_parts.append(done + first)
        done, last_key = rows.stop, user_key[-1]
        if on_progress:
            on_progress(done, total)
    if done != total:
        raise DatabaseError(
            f"reading dataset {name!r} gave {done:,} of {total:,} interactions; nothing was "
            "kept, run the command again"
        )
    items.flush()
    times.flush()
    np.save(folder / "offsets.npy", np.concatenate([*start_parts, [total]]).astype(np.int64))
    return plays, np.concatenate(key_parts)


def _batches(cursor: Any, name: str, total: int) -> Iterator[pa.RecordBatch]:
    """The ordered read; a lost connection becomes one clear line."""
    cursor.adbc_statement.set_options(**{"adbc.postgresql.batch_size_hint_bytes": str(BATCH_BYTES)})
    done = 0
    try:
        cursor.execute(_INTERACTIONS)
        for batch in cursor.fetch_record_batch():
            if len(batch):
                done += len(batch)
                yield batch
    except (AdbcError, OSError) as error:  # a server that goes away is a plain OSError to ADBC
        raise DatabaseError(
            f"the connection to Postgres was lost after {done:,} of {total:,} interactions of "
            f"dataset {name!r}; nothing was kept, run the command again"
        ) from error


def _rows_of(cursor: Any, query: str, keys: np.ndarray[Any, Any]) -> pa.Table:
    """The rows of ``query`` whose key (its first column) is among the sorted ``keys``."""
    cursor.execute(query)
    kept = [
        batch.filter(pc.is_in(batch.column(0), value_set=pa.array(keys)))
        for batch in cursor.fetch_record_batch()
    ]
    return pa.Table.from_batches(kept)


def _renumber(folder: Path, plays: np.ndarray[Any, Any]) -> None:
    """Turn track keys into item indices 1..N, in the order of the keys, in place."""
    index_of = np.cumsum(plays > 0).astype(np.int32)
    items = np.load(folder / "items.npy", mmap_mode="r+")
    for start in range(0, len(items), 1 << 20):
        part = slice(start, start + (1 << 20))
        items[part] = index_of[items[part]]
    items.flush()
