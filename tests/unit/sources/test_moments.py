"""New, known or refused, and the order among equal times: against one line at a time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musicrec.sources import moments as moments_module
from musicrec.sources.moments import Moments, StoredListens, place

Listen = tuple[int, int, int]  # user_key, microseconds, track_key

listens = st.tuples(st.integers(1, 3), st.integers(0, 2), st.integers(1, 4))
files = st.lists(listens, max_size=40)


def line_by_line(file: Sequence[Listen], table: dict[Listen, int], last_tie: int) -> list[int]:
    """The rule in plain Python: fills ``table`` (listen → tie), returns the refused rows."""
    refused = []
    for row, listen in enumerate(file):
        if listen in table:
            continue
        ties = [tie for (user, at, _), tie in table.items() if (user, at) == listen[:2]]
        tie = max(ties, default=-1) + 1
        if tie > last_tie:
            refused.append(row)
        else:
            table[listen] = tie
    return refused


def stored_listens(table: dict[Listen, int]) -> StoredListens:
    rows = np.array([(*listen, tie) for listen, tie in table.items()], dtype=np.int64)
    user, at, track, tie = rows.reshape(-1, 4).T
    return StoredListens(user, at, track, tie.astype(np.int16))


def add(chunk: Sequence[Listen], table: dict[Listen, int]) -> list[int]:
    """Place a chunk, and put what it adds into ``table``; returns the refused rows."""
    user, at, track = np.array(chunk, dtype=np.int64).reshape(-1, 3).T
    placement = place(Moments(user, at), track, [stored_listens(table)] if table else [])
    added = [chunk[row] for row in placement.rows]
    assert placement.num_known + len(added) + len(placement.refused) == len(chunk)
    for listen, tie in zip(added, placement.tie.tolist(), strict=True):
        assert listen not in table
        table[listen] = tie
    return placement.refused.tolist()


@given(file=files, cuts=st.lists(st.integers(0, 40), max_size=4))
def test_a_file_cut_anywhere_is_stored_as_line_by_line(file, cuts):
    expected: dict[Listen, int] = {}
    line_by_line(file, expected, last_tie=32_767)
    table: dict[Listen, int] = {}
    bounds = [0, *sorted(cuts), len(file)]
    for begin, end in itertools.pairwise(bounds):
        add(file[begin:end], table)
    assert table == expected


@given(file=files, cut=st.integers(0, 40))
def test_lines_beyond_the_last_tie_are_refused_wherever_the_file_is_cut(file, cut):
    expected: dict[Listen, int] = {}
    refused = line_by_line(file, expected, last_tie=1)
    table: dict[Listen, int] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(moments_module, "LAST_TIE", 1)
        first = add(file[:cut], table)
        second = add(file[cut:], table)
    assert table == expected
    assert first + [row + min(cut, len(file)) for row in second] == refused


@given(file=files)
def test_new_listens_come_in_order_of_user_time_and_tie(file):
    user, at, track = np.array(file, dtype=np.int64).reshape(-1, 3).T
    placement = place(Moments(user, at), track, [])
    order = [(*file[row][:2], tie) for row, tie in zip(placement.rows, placement.tie, strict=True)]
    assert order == sorted(order)


@given(file=files.filter(bool))
def test_spans_are_each_users_first_and_last_time(file):
    user, at, _ = np.array(file, dtype=np.int64).T
    expected = [
        (key, min(t for u, t, _ in file if u == key), max(t for u, t, _ in file if u == key))
        for key in sorted({u for u, _, _ in file})
    ]
    spans = zip(*(column.tolist() for column in Moments(user, at).spans()), strict=True)
    assert list(spans) == expected


def test_times_that_differ_by_a_microsecond_are_different_moments():
    at = np.array([1_700_000_000_000_001, 1_700_000_000_000_000], dtype=np.int64)
    user = np.full(2, 2**40, dtype=np.int64)
    assert len(Moments(user, at)) == 2
    assert Moments(user, at).find(user[:1], at[:1] + 1).tolist() == [-1]
