"""Order, choice and exploration, by a ranker or without one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musicrec.errors import ConfigError
from musicrec.serving.candidates import Candidates
from musicrec.serving.pipeline import Pipeline, from_popularity
from musicrec.serving.ranker import Ranker
from musicrec.serving.ranking import COLUMNS


class Trees:
    """Stands in for LightGBM's: says what the column of affinity holds."""

    def predict(self, features, num_threads):
        return features[:, COLUMNS.index("graph__affinity")].astype(float)


def candidates(num: int = 100) -> Candidates:
    scores = np.arange(num, 0, -1).astype(np.float32) / 10
    return Candidates(np.arange(1, num + 1), scores, np.ones(num, np.uint8))


def features(of: Candidates, affinity) -> np.ndarray:
    matrix = np.zeros((len(of.items), len(COLUMNS)), np.float32)
    matrix[:, COLUMNS.index("sasrec__score")] = of.scores
    matrix[:, COLUMNS.index("graph__affinity")] = affinity
    return matrix


RANKER = Ranker(Trees(), 0.0, np.zeros(1, np.float32))


def chosen(pipeline: Pipeline, k: int, affinity=None, of=None, seed: int = 0):
    of = candidates() if of is None else of
    ranked = pipeline.ranked(of, None if affinity is None else features(of, affinity))
    return pipeline.chosen(ranked, k, np.random.default_rng(seed))


def test_without_a_ranker_the_order_of_the_model_stands():
    assert [track.item for track in chosen(Pipeline(), 10)] == [*range(1, 11)]
    assert [track.score for track in chosen(Pipeline(), 2)] == pytest.approx([10, 9.9])


def test_without_features_the_order_of_the_model_stands_although_there_is_a_ranker():
    assert [track.item for track in chosen(Pipeline(RANKER), 10)] == [*range(1, 11)]


def test_with_both_the_ranker_orders_and_equals_stay_as_the_model_has_them():
    affinity = np.zeros(100)
    affinity[[40, 70]] = 2, 1
    tracks = chosen(Pipeline(RANKER), 4, affinity)
    assert [track.item for track in tracks] == [41, 71, 1, 2]
    assert [track.score for track in tracks] == [2, 1, 0, 0]


def test_trees_are_added_to_what_they_were_grown_from():
    of, affinity = candidates(), np.zeros(100)
    affinity[1] = 0.3
    ranker = Ranker(Trees(), 2.0, np.zeros(1, np.float32))
    tracks = chosen(Pipeline(ranker), 3, affinity, of)
    assert [track.item for track in tracks] == [2, 1, 3]
    assert [track.score for track in tracks] == pytest.approx([20.1, 20, 19.6])


@given(explore=st.floats(0, 0.5), k=st.integers(1, 100), seed=st.integers(0, 99))
def test_exploration_takes_its_share_of_the_places_and_no_more(explore, k, seed):
    tracks = chosen(Pipeline(explore=explore), k, seed=seed)
    drawn = [track for track in tracks if "explore" in track.sources]
    assert len(tracks) == len({track.item for track in tracks}) == k
    assert len(drawn) == min(int(explore * k), 100 - k)
    best = k - len(drawn)
    assert [track.item for track in tracks[:best]] == [*range(1, best + 1)]
    assert all(track.sources == ("explore", "sasrec") for track in tracks[best:])
    scores = [track.score for track in tracks]
    assert scores == sorted(scores, reverse=True)


def test_exploration_draws_from_all_that_is_below():
    drawn = {t.item for seed in range(400) for t in chosen(Pipeline(explore=0.5), 4, seed=seed)[2:]}
    assert drawn == {*range(3, 101)}


def test_of_few_candidates_all_come_and_none_twice():
    tracks = chosen(Pipeline(explore=0.5), 10, of=candidates(4))
    assert [track.item for track in tracks] == [1, 2, 3, 4]


def test_no_candidates_make_no_answer():
    assert chosen(Pipeline(RANKER), 10, np.empty(0), candidates(0)) == []


@pytest.mark.parametrize(
    "settings",
    [{"num_candidates": 49}, {"num_candidates": 1001}, {"explore": -0.1}, {"explore": 0.51}],
)
def test_a_setting_out_of_range_is_named(settings):
    with pytest.raises(ConfigError, match=r"(candidates|explore)=.* is not within"):
        Pipeline(**settings)


def test_a_long_answer_looks_at_twice_as_many_candidates():
    assert [Pipeline().num_best(k) for k in (10, 50, 200)] == [100, 100, 400]


def test_of_somebody_unknown_what_is_popular_is_recommended():
    tracks = from_popularity(np.array([4, 9, 2, 7]), np.array([0, 9]), 2)
    assert [(track.item, track.sources) for track in tracks] == [
        (4, ("popular",)),
        (2, ("popular",)),
    ]
    assert tracks[0].score > tracks[1].score
