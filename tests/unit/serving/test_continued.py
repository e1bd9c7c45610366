"""Stored plays and those of a request become one listening."""

from __future__ import annotations

import numpy as np
import pytest

from musicrec.serving.continued import NOBODY, continued
from musicrec.serving.listening import KEPT_PLAYS, listening_of_items

MINUTE = 60_000_000
NOW = 1_700_000_000_000_000
NOTHING = np.empty(0, np.int64)


def items(*wanted: int) -> np.ndarray:
    return np.array(wanted, np.int64)


def stored(*plays: tuple[int, int]):
    """Of items played so many minutes ago."""
    return listening_of_items(
        items(*(item for item, _ in plays)),
        items(*(NOW - ago * MINUTE for _, ago in plays)),
    )


def test_the_history_of_a_request_follows_what_is_stored_as_plays_of_now():
    listening = continued(stored((1, 90), (2, 80)), items(3, 4), NOTHING, NOW)
    assert listening.items.tolist() == [1, 2, 3, 4]
    assert listening.times is not None
    assert listening.times.tolist() == [NOW - 90 * MINUTE, NOW - 80 * MINUTE, NOW, NOW]
    assert listening.heard.tolist() == [1, 2, 3, 4]


def test_of_a_strangers_history_only_the_order_is_known():
    listening = continued(NOBODY, items(3, 1, 3), NOTHING, NOW, unknown=("x",))
    assert listening.items.tolist() == [3, 1, 3]
    assert listening.times is None
    assert listening.unknown == ("x",)


@pytest.mark.parametrize(
    ("session", "plays"),
    [
        ((8, 9), (1, 8, 9)),  # all of it was written as events
        ((8, 9, 7), (1, 8, 9, 7)),  # the newest was not yet
        ((9,), (1, 8, 9)),  # another device played before
        ((8, 8, 9), (1, 8, 9, 8)),  # played twice, written once
        ((1,), (1, 8, 9, 1)),  # that play was of an earlier session
    ],
)
def test_what_of_a_session_is_stored_already_counts_once(session, plays):
    listening = continued(stored((1, 90), (8, 5), (9, 2)), NOTHING, items(*session), NOW)
    assert tuple(listening.items.tolist()) == plays


def test_the_session_of_a_stranger_may_be_the_end_of_their_history():
    listening = continued(NOBODY, items(1, 2, 3), items(3, 4), NOW)
    assert listening.items.tolist() == [1, 2, 3, 4]


def test_a_play_by_a_clock_ahead_of_ours_is_of_now():
    listening = continued(stored((1, 5), (2, -10)), NOTHING, NOTHING, NOW)
    assert listening.times is not None
    assert listening.times.tolist() == [NOW - 5 * MINUTE, NOW]


def test_of_many_plays_the_newest_are_kept_and_all_were_heard():
    many = listening_of_items(np.arange(1, KEPT_PLAYS + 1), np.arange(KEPT_PLAYS))
    listening = continued(many, items(9_000), NOTHING, NOW)
    assert len(listening) == KEPT_PLAYS
    assert listening.items[[0, -1]].tolist() == [2, 9_000]
    assert 1 in listening.heard
