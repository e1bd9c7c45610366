"""The listeners' traits, and that their plays show them."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musicrec.sources.synthetic import SyntheticWorld
from musicrec.sources.synthetic.listeners import (
    LOVED_ARTIST,
    Listener,
    make_listener,
    pick,
    pick_distinct,
)
from musicrec.sources.synthetic.tracks import Tracks, make_tracks

DAYS = 182


@pytest.fixture(scope="module")
def catalogue() -> Tracks:
    return make_tracks(np.random.default_rng(1), 400, date(2024, 1, 1), DAYS)


@pytest.fixture(scope="module")
def listeners(catalogue: Tracks) -> list[Listener]:
    return [make_listener(np.random.default_rng([2, i]), catalogue, DAYS) for i in range(300)]


@given(st.lists(st.integers(0, 1 << 40), min_size=1, max_size=20).filter(any), st.data())
def test_pick_falls_within_the_share_of_its_weight(weights: list[int], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, sum(weights) - 1))
    picked = pick(np.array(weights), (place + 0.5) / sum(weights))
    before = sum(weights[:picked])
    assert before <= place < before + weights[picked]


def test_distinct_picks_end_when_nothing_is_left() -> None:
    assert sorted(pick_distinct(np.array([0, 5, 1]), [0.5, 0.5, 0.5])) == [1, 2]


def test_about_half_of_the_listeners_change_their_taste(listeners: list[Listener]) -> None:
    changed = np.mean([(who.taste_at_first != who.taste_at_last).any() for who in listeners])
    assert 0.4 < changed < 0.6


def test_some_listeners_join_late_and_some_leave_early(listeners: list[Listener]) -> None:
    assert 0.15 < np.mean([who.first_day > 0 for who in listeners]) < 0.35
    assert 0.1 < np.mean([who.last_day < DAYS - 1 for who in listeners]) < 0.3
    assert all(0 <= who.first_day <= who.last_day < DAYS for who in listeners)


def test_nobody_begins_a_session_between_one_and_six(listeners: list[Listener]) -> None:
    assert all(who.hours[1:6].sum() == 0 for who in listeners)


def test_a_loved_artist_is_skipped_less_than_the_others() -> None:
    world = SyntheticWorld(seed=4, num_tracks=200, num_listeners=40)
    catalogue = make_tracks(np.random.default_rng([4, 1]), 200, date(2024, 1, 1), DAYS)
    loved: list[bool] = []
    skipped: list[bool] = []
    for listener in range(40):
        rng = np.random.default_rng([4, 0, listener])
        affinity = make_listener(rng, catalogue, DAYS).affinity
        life = world.listening(listener)
        tracks = [track for _, track in life.choices()]
        loved += (affinity[catalogue.artist[tracks]] == LOVED_ARTIST).tolist()
        skipped += life.diary.skipped
    assert np.mean(np.array(skipped)[loved]) < np.mean(np.array(skipped)[~np.array(loved)]) / 2
