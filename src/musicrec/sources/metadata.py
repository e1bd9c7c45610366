"""What a source says about tracks, brought into the ``tracks`` table.

The first word counts: a value fills a null and is never overwritten, by a later row of the same
file or by another file. So importing twice changes nothing.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from adbc_driver_manager.dbapi import Cursor

from musicrec.interactions.schema import AUDIO_FEATURES, TRACK

Ints = npt.NDArray[np.int64]

#: Everything a track has besides its id.
COLUMNS = tuple(name for name in TRACK.names if name != "track_id")

#: What the table's checks accept, both ends included; float columns not named take any number.
_RANGES = {
    "duration_ms": (0, 2**31 - 1),
    "tempo": (0.0, np.inf),
    **{name: (0.0, 1.0) for name in AUDIO_FEATURES if name not in ("tempo", "loudness")},
}


def storable(metadata: pa.Table, dropped: Counter[str]) -> pa.Table:
    """Rows of ``TRACK`` with each value that the table would refuse made null, and counted."""
    for at, field in enumerate(metadata.schema):
        column = metadata.column(at)
        if pa.types.is_string(field.type) and field.name != "track_id":
            column = without_nul(column)
        elif pa.types.is_list(field.type):
            column = _tags_without_nul(column)
        elif field.name in _RANGES or pa.types.is_floating(field.type):
            column = _within(field.name, column, dropped)
        metadata = metadata.set_column(at, field, column)
    return metadata


def first_said(metadata: pa.Table, track: npt.NDArray[np.int32], num_tracks: int) -> pa.Table:
    """One row per track: of each column the first value that is not null.

    Args:
        metadata: rows of ``TRACK``.
        track: for each row the number of its track.
        num_tracks: how many there are; a track without a row gets nulls.
    """
    columns = {}
    for name in COLUMNS:
        column = metadata[name].combine_chunks()
        rows = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
        first = np.full(num_tracks, -1)
        first[track[rows[::-1]]] = rows[::-1]
        columns[name] = column.take(pa.array(first, mask=first < 0))
    return pa.table(columns)


def fill(cursor: Cursor, track_key: Ints, said: pa.Table) -> None:
    """Fill nulls of tracks that are stored; touch nothing where there is nothing to fill.

    Args:
        cursor: in the transaction that locked the tables.
        track_key: distinct keys of stored tracks.
        said: for each of them what is said, as from ``first_said``.
    """
    offered = _bits(said)
    cursor.execute("CREATE TEMP TABLE offered (track_key bigint, columns smallint) ON COMMIT DROP")
    some = np.flatnonzero(offered)
    rows = pa.table({"track_key": track_key[some], "columns": offered[some]})
    cursor.adbc_ingest("offered", rows, mode="append", temporary=True)
    cursor.execute(
        f"SELECT track_key FROM offered JOIN tracks USING (track_key) "  # noqa: S608
        f"WHERE columns & ({_GAPS}) <> 0"
    )
    open_keys = cursor.fetch_arrow_table()["track_key"].to_numpy()
    if len(open_keys):
        rows = np.flatnonzero(np.isin(track_key, open_keys))
        _update(cursor, track_key[rows], said.take(pa.array(rows)))


def _update(cursor: Cursor, track_key: Ints, said: pa.Table) -> None:
    names = ", ".join(COLUMNS)
    cursor.execute(
        f"CREATE TEMP TABLE said ON COMMIT DROP AS SELECT track_key, {names} FROM tracks "  # noqa: S608
        "WITH NO DATA"
    )
    rows = said.append_column("track_key", pa.array(track_key))
    cursor.adbc_ingest("said", rows, mode="append", temporary=True)
    assignments = ", ".join(f"{name} = coalesce(tracks.{name}, said.{name})" for name in COLUMNS)
    cursor.execute(
        f"UPDATE tracks SET {assignments} FROM said "  # noqa: S608
        "WHERE tracks.track_key = said.track_key"
    )


def without_nul(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Text with each zero byte, which Postgres cannot hold, made a replacement character."""
    if pc.any(pc.match_substring(column, "\0")).as_py():
        return pc.replace_substring(column, "\0", "\ufffd")
    return column


#: One bit per column that is null, in SQL; ``_bits`` has the same order.
_GAPS = " + ".join(
    f"CASE WHEN {name} IS NULL THEN {1 << bit} ELSE 0 END" for bit, name in enumerate(COLUMNS)
)


def _bits(said: pa.Table) -> npt.NDArray[np.int16]:
    """For each row one bit per column that is not null."""
    bits = np.zeros(len(said), dtype=np.int16)
    for bit, name in enumerate(COLUMNS):
        valid = said[name].is_valid().to_numpy()
        bits |= valid.astype(np.int16) << bit
    return bits


def _within(name: str, column: pa.ChunkedArray, dropped: Counter[str]) -> pa.ChunkedArray:
    low, high = _RANGES.get(name, (-np.inf, np.inf))
    sound = pc.and_(pc.greater_equal(column, low), pc.less_equal(column, high))
    if pa.types.is_floating(column.type):
        sound = pc.and_(sound, pc.is_finite(column))
    count = pc.sum(pc.invert(sound)).as_py() or 0
    if not count:
        return column
    dropped[f"{name} out of range (value dropped)"] += count
    return pc.if_else(sound, column, pa.scalar(None, column.type))


def _tags_without_nul(tags: pa.ChunkedArray) -> pa.ChunkedArray:
    if not pc.any(pc.match_substring(pc.list_flatten(tags), "\0")).as_py():
        return tags
    clean = [
        words and [word and word.replace("\0", "\ufffd") for word in words]
        for words in tags.to_pylist()
    ]
    return pa.chunked_array([clean], tags.type)
