"""The oracle: the distribution it ranks by is the one the plays were drawn from."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pyarrow as pa
import pytest

from musicrec.errors import DataError
from musicrec.sources.synthetic import SyntheticWorld
from musicrec.sources.synthetic.world import FIRST_DAY


def plays(listens: pa.Table) -> dict[str, list[str]]:
    """Each listener's track ids in time order."""
    of: dict[str, list[str]] = defaultdict(list)
    for user, track in zip(
        listens["user_id"].to_pylist(), listens["track_id"].to_pylist(), strict=True
    ):
        of[user].append(track)
    return of


def test_oracle_ranks_follow_from_the_distribution(
    world: SyntheticWorld, listens: pa.Table
) -> None:
    """Replayed from outside: the listens as imported, ranked by sorting the true weights."""
    ranks, ids = world.oracle_ranks(), world.track_ids
    for user, heard in list(plays(listens).items())[:3]:
        for position, track in enumerate(heard):
            weight = dict(zip(ids, world.next_track_weights(user, position).tolist(), strict=True))
            better_or_equal = sum(other >= weight[track] for other in weight.values())
            assert ranks[user][position] == better_or_equal


def test_oracle_ranks_cover_every_play(world: SyntheticWorld, listens: pa.Table) -> None:
    lengths = {user: len(heard) for user, heard in plays(listens).items()}
    assert {user: len(ranks) for user, ranks in world.oracle_ranks().items()} == lengths


def test_distribution_sums_to_one(world: SyntheticWorld) -> None:
    for position in range(10):
        chances = world.next_track_distribution("listener-000004", position)
        assert chances.sum() == pytest.approx(1, abs=1e-12)
        assert (chances >= 0).all()


def test_any_released_track_may_come_next_and_no_other(
    world: SyntheticWorld, tracks: pa.Table
) -> None:
    chances = world.next_track_distribution("listener-000004", 0)
    released = np.array([day < FIRST_DAY for day in tracks["released_on"].to_pylist()])
    assert tracks["track_id"].to_pylist() == world.track_ids
    assert (chances[released] > 0).all()
    assert not chances[~released].all()


def test_plays_fall_where_the_distribution_says(world: SyntheticWorld, listens: pa.Table) -> None:
    """Chi-square over all plays: the track drawn is the r-th likeliest as often as promised."""
    edges = np.array([1, 2, 3, 5, 8, 13, 21, 51, world.num_tracks + 1])
    expected, drawn = np.zeros(len(edges) - 1), np.zeros(len(edges) - 1)
    for listener in range(world.num_listeners):
        for choice, track in world.listening(listener).choices():
            weights = choice.weights()
            order = np.argsort(-weights, kind="stable")
            chances = weights[order] / int(weights.sum())
            expected += np.add.reduceat(chances, edges[:-1] - 1)
            drawn += np.histogram(np.flatnonzero(order == track)[0] + 1, edges)[0]
    chi_square = ((drawn - expected) ** 2 / expected).sum()
    assert chi_square < 26.1  # 99.9th percentile, 8 degrees of freedom


@pytest.mark.slow
def test_best_simple_rule_stays_below_three_fifths_of_the_oracle() -> None:
    """Popularity, own plays and first-order Markov, leave-one-out, in the world as shipped."""
    world = SyntheticWorld()
    histories = [heard for batch in world.batches() for heard in plays(batch.listens).values()]
    row = {track: index for index, track in enumerate(world.track_ids)}
    sequences = [np.array([row[track] for track in heard]) for heard in histories]
    oracle = ndcg_10(np.array([ranks[-1] for ranks in world.oracle_ranks().values()]))
    popularity = np.bincount(
        np.concatenate([s[:-1] for s in sequences]), minlength=world.num_tracks
    )
    followers = np.zeros((world.num_tracks, world.num_tracks))
    for sequence in sequences:
        np.add.at(followers, (sequence[:-2], sequence[1:-1]), 1)
    rules = defaultdict(list)
    for sequence in sequences:
        *past, target = sequence
        fill = popularity / 1e9
        latest = np.zeros(world.num_tracks)
        latest[past] = np.arange(1, len(past) + 1) / 1e6
        own = np.bincount(past, minlength=world.num_tracks) + latest
        for rule, scores in {
            "popularity": popularity,
            "own plays": own + fill,
            "markov": followers[past[-1]] + fill,
        }.items():
            rules[rule].append(np.count_nonzero(scores >= scores[target]))
    best = max(ndcg_10(np.array(ranks)) for ranks in rules.values())
    assert 0.35 < oracle < 0.6
    assert best <= 0.6 * oracle


def ndcg_10(ranks: np.ndarray) -> float:
    return float(np.where(ranks <= 10, 1 / np.log2(ranks + 1), 0).mean())


@pytest.mark.parametrize(
    ("user", "position", "message"),
    [
        ("listener-000060", 0, "has no listener 'listener-000060'"),
        ("listener-4", 0, "has no listener 'listener-4'"),
        ("listener-000004", 100_000, "listener-000004 .* has no play number 100000"),
    ],
)
def test_an_unknown_listener_or_play_is_named(
    world: SyntheticWorld, user: str, position: int, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        world.next_track_distribution(user, position)
