"""What is said of tracks, before it meets a table."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from musicrec.interactions.schema import TRACK
from musicrec.sources import metadata


def tracks(*rows: dict[str, object]) -> pa.Table:
    return pa.Table.from_pylist([{"track_id": "t", **row} for row in rows], schema=TRACK)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("danceability", 7.3),
        ("valence", -0.1),
        ("energy", float("nan")),
        ("tempo", -1.0),
        ("tempo", float("nan")),
        ("loudness", float("inf")),
        ("duration_ms", -1),
    ],
)
def test_a_value_the_table_would_refuse_becomes_null_and_is_counted(column, value):
    dropped: Counter[str] = Counter()
    clean = metadata.storable(tracks({column: value, "title": "kept"}), dropped)
    assert clean.to_pylist()[0] | {column: None} == clean.to_pylist()[0]
    assert clean["title"].to_pylist() == ["kept"]
    assert dropped == {f"{column} out of range (value dropped)": 1}


@pytest.mark.parametrize(
    ("column", "value"), [("danceability", 1.0), ("loudness", -60.0), ("duration_ms", 0)]
)
def test_a_value_at_the_edge_is_kept(column, value):
    dropped: Counter[str] = Counter()
    clean = metadata.storable(tracks({column: value}, {column: None}), dropped)
    assert clean[column].to_pylist() == [value, None]
    assert not dropped


def test_zero_bytes_become_replacement_characters_in_texts_and_tags():
    clean = metadata.storable(tracks({"title": "a\0b", "tags": ["x\0", None, "y"]}), Counter())
    assert clean["title"].to_pylist() == ["a\ufffdb"]
    assert clean["tags"].to_pylist() == [["x\ufffd", None, "y"]]


def test_of_several_rows_each_column_takes_its_first_word():
    rows = tracks({"title": None, "artist": "A"}, {"title": "second"}, {"title": "third"})
    said = metadata.first_said(rows, np.zeros(3, dtype=np.int32), num_tracks=2)
    assert said["title"].to_pylist() == ["second", None]
    assert said["artist"].to_pylist() == ["A", None]
