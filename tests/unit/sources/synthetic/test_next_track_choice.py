"""Each way of listening, on a catalogue of two albums small enough to check by eye."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from musicrec.sources.synthetic import SyntheticWorld
from musicrec.sources.synthetic.choice import (
    BREATHER,
    AlbumPath,
    Offer,
    Path,
    RadioPath,
    RotationPath,
    TurnsPath,
    WanderPath,
)
from musicrec.sources.synthetic.tracks import Tracks, make_tracks


def offered(path: Path) -> dict[int, int]:
    """Rows of positive weight on the path."""
    rows, weights = path.offer()
    return {
        row: weight for row, weight in zip(rows.tolist(), weights.tolist(), strict=True) if weight
    }


def hits(weights: dict[int, int]) -> Offer:
    return np.array(list(weights)), np.array(list(weights.values()))


@pytest.fixture(scope="module")
def catalogue() -> Tracks:
    return make_tracks(np.random.default_rng(1), 200, date(2024, 1, 1), 182)


def first_track(catalogue: Tracks) -> int:
    """A track that others follow and that follows none."""
    followers = set(catalogue.following.tolist())
    return next(r for r in range(200) if r not in followers and catalogue.following[r] >= 0)


def test_an_album_goes_on_with_its_next_track(catalogue: Tracks) -> None:
    track = first_track(catalogue)
    path = AlbumPath(catalogue, hits({track: 1}))
    path.hear(track)
    assert list(offered(path)) == [catalogue.following[track]]


def test_an_album_survives_a_whim(catalogue: Tracks) -> None:
    track = first_track(catalogue)
    path = AlbumPath(catalogue, hits({track: 1}))
    path.hear(track)
    path.hear(track)
    assert list(offered(path)) == [catalogue.following[track]]


def test_after_the_last_track_another_album_begins(catalogue: Tracks) -> None:
    opening = {first_track(catalogue): 5}
    path = AlbumPath(catalogue, hits(opening))
    path.hear(int(np.flatnonzero(catalogue.following < 0)[0]))
    assert offered(path) == opening


def test_the_short_list_prefers_what_was_longest_unheard() -> None:
    path = RotationPath([4, 9, 2])
    path.hear(4)
    path.hear(77)
    assert sorted(offered(path), key=lambda row: -offered(path)[row]) == [9, 2, 4]


def test_a_radio_gives_a_hit_a_breather() -> None:
    path = RadioPath(hits({1: 10, 2: 5, 3: 3, 4: 2, 5: 1}))
    path.hear(1)
    for row in (2, 3):
        assert 1 not in offered(path)
        path.hear(row)
    assert BREATHER == 3
    path.hear(4)
    assert offered(path) == {1: 10, 5: 1}


def test_turns_alternate_whatever_is_heard() -> None:
    path = TurnsPath(hits({1: 2, 2: 1}), hits({8: 2, 9: 1}))
    for turn, heard in enumerate([1, 8, 77]):
        assert set(offered(path)) <= ({1, 2} if turn % 2 == 0 else {8, 9})
        path.hear(heard)
    assert offered(path) == {9: 1}


def test_wandering_leads_to_similar_artists(catalogue: Tracks) -> None:
    path = WanderPath(catalogue, hits({0: 1}), np.ones(200, dtype=np.int64))
    assert list(offered(path)) == [0]
    path.hear(0)
    similar = np.flatnonzero(catalogue.near[catalogue.artist[0]])
    assert set(offered(path)) == set(np.flatnonzero(np.isin(catalogue.artist, similar)).tolist())


@pytest.mark.parametrize("listener", range(4))
def test_draws_follow_the_weights(listener: int) -> None:
    """Chi-square of many draws from one moment of a life, over all its tracks of some weight."""
    world = SyntheticWorld(seed=5, num_tracks=200, num_listeners=4)
    choice = next(c for play, (c, _) in enumerate(world.listening(listener).choices()) if play == 9)
    weights = choice.weights()
    num_draws = 4000
    draws = np.random.default_rng(listener).random(num_draws).tolist()
    drawn = np.bincount([choice.draw(chance) for chance in draws], minlength=200)
    expected = weights / int(weights.sum()) * num_draws
    common = expected >= 5
    counts = np.append(drawn[common], drawn[~common].sum())
    promised = np.append(expected[common], expected[~common].sum())
    freedom = len(counts) - 1
    chi_square = ((counts - promised) ** 2 / promised).sum()
    assert chi_square < freedom + 4 * np.sqrt(2 * freedom) + 4


def test_the_largest_and_smallest_chance_fall_on_a_track() -> None:
    world = SyntheticWorld(seed=5, num_tracks=200, num_listeners=4)
    for choice, _ in world.listening(0).choices():
        weights = choice.weights()
        assert weights[choice.draw(0.0)] > 0
        assert weights[choice.draw(1 - 2**-53)] > 0
