"""Columns as values: text by its distinct values, numbers, truths; and ids made of names."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musicrec.sources.reading.names import made_track_ids, normalised
from musicrec.sources.reading.values import Texts, cast_or_null, numbers, truths


def test_text_is_trimmed_and_what_becomes_equal_is_one_value() -> None:
    texts = Texts.of(pa.array([" a", "a", "b ", "  ", None]))
    assert texts.strings().to_pylist() == ["a", "a", "b", None, None]
    assert texts.values.to_pylist() == ["a", "b"]


def test_whole_numbers_that_a_file_holds_as_floats_lose_their_point() -> None:
    assert Texts.of(pa.array([874.0, None, 5.0])).strings().to_pylist() == ["874", None, "5"]
    assert Texts.of(pa.array([1.5, 2.0])).strings().to_pylist()[0] == "1.5"


@given(
    st.lists(st.none() | st.sampled_from("abc"), min_size=1),
    st.lists(st.booleans(), min_size=30, max_size=30),
)
def test_kept_rows_keep_their_values_and_no_others(
    rows: list[str | None], keep: list[bool]
) -> None:
    rows = rows[:30]
    mask = np.array(keep[: len(rows)])
    kept = Texts.of(pa.array(rows, pa.string())).kept(mask)
    expected = [row for row, stays in zip(rows, mask, strict=True) if stays]
    assert kept.strings().to_pylist() == expected
    assert set(kept.values.to_pylist()) == set(expected) - {None}


def test_missing_values_are_filled_and_equal_ones_stay_one() -> None:
    one, other = Texts.of(pa.array(["a", None, None])), Texts.of(pa.array(["x", "a", None]))
    filled = one.filled(other)
    assert filled.strings().to_pylist() == ["a", "a", None]
    assert filled.values.to_pylist() == ["a"]


@pytest.mark.parametrize("column", [["1", "2.5", None], [" 1", "2.5 ", "NaN"], ["1", "2.5", "n/a"]])
def test_numbers_are_read_and_unknown_ones_are_missing(column: list[str | None]) -> None:
    found, bad = numbers(pa.array(column))
    assert found[:2].tolist() == [1.0, 2.5]
    assert np.isnan(found[2])
    assert not bad.any()


def test_what_is_no_number_is_marked() -> None:
    assert numbers(pa.array(["1", "x", "inf", "1,5"]))[1].tolist() == [False, True, True, True]


def test_truths_are_read_however_files_write_them() -> None:
    column = pa.array(["TRUE", "yes", "1", "F", "no", "0", "null", None, "perhaps"])
    found, odd = truths(column)
    assert found.to_pylist() == [True] * 3 + [False] * 3 + [None] * 3
    assert odd.tolist() == [False] * 8 + [True]


@given(st.lists(st.sampled_from(["1", "x", "22", ""]), max_size=50))
def test_casting_loses_the_bad_values_only(values: list[str]) -> None:
    found = cast_or_null(pa.array(values, pa.string()), pa.int64())
    assert found.to_pylist() == [int(v) if v.isdigit() else None for v in values]


@given(st.text())
def test_normalising_twice_changes_nothing(name: str) -> None:
    assert normalised(normalised(name)) == normalised(name)


@pytest.mark.parametrize(
    ("name", "same"), [("BJÖRK ", "Björk"), ("AC\u2009DC", "ac dc"), ("ﬁne", "Fine"), ("ẞ", "ss")]
)
def test_names_that_differ_in_spelling_only_are_one(name: str, same: str) -> None:
    assert normalised(name) == normalised(same)


def test_an_id_is_made_of_artist_and_title_where_both_are_known() -> None:
    artist = Texts.of(pa.array(["Queen", "QUEEN", None, "Queen"]))
    title = Texts.of(pa.array(["Radio  Ga Ga", "radio ga ga", "x", None]))
    made = made_track_ids(artist, title)
    assert made.strings().to_pylist() == ["queen :: radio ga ga"] * 2 + [None] * 2
    assert len(made.values) == 1
