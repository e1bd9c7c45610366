"""What is made in whole columns is what layout says entity by entity."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import hiredis
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musicrec.features import layout
from musicrec.features.tables import STAMP
from musicrec.features.views import STORED, View
from musicrec.features.writing import Writing, payload, row_at

ids = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=20)
stamps = st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1)).map(
    lambda t: t.replace(tzinfo=UTC)
)
numbers = st.none() | st.floats(width=32)


def rows_of(view: View) -> st.SearchStrategy[list[tuple[object, ...]]]:
    columns = [ids] * len(view.join_keys) + [stamps] + [numbers] * len(view.features)
    return st.lists(st.tuples(*columns), min_size=1, max_size=9)


def batch_of(view: View, rows: list[tuple[object, ...]]) -> pa.RecordBatch:
    schema = pa.schema(
        [(key, pa.string()) for key in view.join_keys]
        + [(STAMP, pa.timestamp("us", tz="UTC"))]
        + [(feature.name, pa.float32()) for feature in view.features]
    )
    return pa.record_batch([pa.array(c, f.type) for c, f in zip(zip(*rows), schema)], schema=schema)


def parsed(stream: memoryview) -> list[list[bytes]]:
    reader = hiredis.Reader()
    reader.feed(bytes(stream))
    found = []
    while (one := reader.gets()) is not False:
        found.append(one)
    return found


@pytest.mark.parametrize("view", STORED, ids=lambda view: view.name)
@given(data=st.data())
def test_commands_and_replies_hold_layouts_bytes(view, data):
    rows = data.draw(rows_of(view))
    batch = Writing(view, "mine").batch(batch_of(view, rows))
    writes, reads, looks, expected = (
        parsed(payload(part)) for part in (batch.writes, batch.reads, batch.stamps, batch.expected)
    )
    stamp_field, fields = layout.timestamp_field(view.name), layout.fields(view)
    for row, write, read, look, answer in zip(rows, writes, reads, looks, expected, strict=True):
        by_name = dict(zip(view.join_keys, row))
        moment, *features = row[len(view.join_keys) :]
        key = layout.key(
            layout.key_prefix(view.join_keys), tuple(v for _, v in sorted(by_name.items())), b"mine"
        )
        values = [
            layout.value(None if number is None or math.isnan(number) else number)
            for number in features
        ]
        pairs = zip((stamp_field, *fields), (layout.timestamp(moment), *values), strict=True)
        assert write == [b"HSET", key, *(part for pair in pairs for part in pair)]
        assert read == [b"HMGET", key, stamp_field, *fields]
        assert look == [b"HGET", key, stamp_field]
        assert answer == [layout.timestamp(moment), *values]


def test_a_place_in_the_bytes_tells_its_row():
    commands = pa.array([b"abc", b"de", b"f"]).slice(1)
    assert bytes(payload(commands)) == b"def"
    assert [row_at(commands, place) for place in range(3)] == [0, 0, 1]
