"""Pairs of plays that follow one another."""

import numpy as np
import pytest

from musicrec.interactions.sequence import Sequences, transitions


@pytest.mark.parametrize(
    ("lag", "expected"),
    [(0, [(1, 2), (2, 3), (3, 4), (7, 8)]), (1, [(1, 3), (2, 4)]), (2, [(1, 4)]), (3, [])],
)
def test_pairs_stay_within_a_listener_and_within_what_may_be_known(lag, expected):
    items = np.array([1, 2, 3, 4, 5, 7, 8, 9], np.int32)
    sequences = Sequences(items, np.array([0, 5, 8]), np.zeros(8, np.int64), catalogue_size=9)
    before, after = transitions(sequences, np.array([4, 2]), lag)
    assert list(zip(before.tolist(), after.tolist(), strict=True)) == expected
