"""Batches joined into chunks."""

from __future__ import annotations

import time

import pyarrow as pa
import pytest

from musicrec.interactions.schema import ID, LISTEN, REJECT, TRACK, ListenBatch
from musicrec.sources.chunk import Chunk


def batch(rows: list[tuple[object, ...]], said: tuple[str, ...] = (), line: int = 1) -> ListenBatch:
    """``rows`` of (user, track, seconds[, ms_played]), on lines from ``line`` on."""
    listens = pa.Table.from_arrays(
        [
            pa.array(range(line, line + len(rows)), pa.int64()),
            pa.array([row[0] for row in rows], pa.string()).cast(ID),
            pa.array([row[1] for row in rows], pa.string()).cast(ID),
            pa.array([int(row[2] * 1_000_000) for row in rows], LISTEN.field("occurred_at").type),
            pa.array([row[3] if len(row) > 3 else None for row in rows], pa.int32()),
            pa.nulls(len(rows), pa.bool_()),
            pa.nulls(len(rows), pa.string()),
        ],
        schema=LISTEN,
    )
    tracks = pa.Table.from_pylist([{"track_id": track} for track in said], schema=TRACK)
    return ListenBatch(listens, tracks, REJECT.empty_table(), 0, line + len(rows) - 1)


def appearing(ids) -> list[str]:
    every = ids.first >= 0
    return ids.distinct.take(pa.array(ids.appearing(every))).to_pylist()


def test_ids_appear_in_the_order_of_the_source_however_batches_are_joined():
    first = batch([("v", "b", 1), ("u", "a", 2)], said=("x", "b"))
    second = batch([("w", "c", 3), ("u", "x", 4)], said=("y",), line=3)
    assert appearing(Chunk.of([first, second]).users) == ["v", "u", "w"]
    assert appearing(Chunk.of([first, second]).tracks) == ["b", "a", "x", "c", "y"]


def test_a_dictionary_that_repeats_a_value_gives_one_id():
    one = batch([("u", "a", 1), ("u", "a", 2)])
    twice = pa.DictionaryArray.from_arrays(pa.array([0, 1], pa.int32()), pa.array(["u", "u"]))
    listens = one.listens.set_column(1, LISTEN.field("user_id"), twice)
    chunk = Chunk.of([ListenBatch(listens, one.tracks, one.rejected, 0, 2)])
    assert chunk.users.distinct.to_pylist() == ["u"]
    assert chunk.users.code.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (("", "a", 1), "missing id"),
        (("u", "", 1), "missing id"),
        (("u\0", "a", 1), "id with a zero byte"),
        (("u", "é" * 501, 1), "id longer than 1,000 bytes"),
        (("u", "a", -1), "time before 1970"),
        (("u", "a", time.time() + 2 * 86_400), "time in the future"),
    ],
)
def test_a_row_no_table_would_take_is_refused_with_its_reason(row, reason):
    chunk = Chunk.of([batch([("v", "b", 1), row, ("v", "c", 2)])])
    assert chunk.listens["line"].to_pylist() == [1, 3]
    assert chunk.rejected.select(["line", "reason"]).to_pylist() == [{"line": 2, "reason": reason}]
    assert appearing(chunk.users) == ["v"]
    assert appearing(chunk.tracks) == ["b", "c"]


def test_a_negative_time_played_is_dropped_and_the_listen_kept():
    chunk = Chunk.of([batch([("u", "a", 1, -5), ("u", "b", 1, 5)])])
    assert chunk.listens["ms_played"].to_pylist() == [None, 5]
    assert chunk.dropped == {"ms_played below 0 (value dropped)": 1}


def test_a_null_id_is_the_sources_fault():
    with pytest.raises(ValueError, match="null id"):
        Chunk.of([batch([(None, "a", 1)])])
