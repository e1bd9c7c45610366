"""Growing the ranker's trees, and what they reach, on made-up questions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from musicrec.errors import BundleError, ConfigError, DataError
from musicrec.metrics.ranking import NEVER
from musicrec.serving import fitting, verdict
from musicrec.serving.candidates import Candidates
from musicrec.serving.fitting import Recipe
from musicrec.serving.past import Target
from musicrec.serving.ranker import Ranker
from musicrec.serving.ranking import COLUMNS
from musicrec.serving.replay import Question, Ranks

RECIPE = Recipe(
    rounds=30,
    learning_rate=0.2,
    leaves=7,
    least_rows=5,
    l2=0.0,
    columns_share=1.0,
    truncation=20,
    base=1.0,
    folds=4,
    seed=5,
)
TELLING = COLUMNS.index("listening__share")


def question(number: int, *, tells: int | None, place: int = 12, rank: int = 40) -> Question:
    """Twenty candidates; the column ``tells`` is higher for the target than for the others."""
    draw = np.random.default_rng(number)
    features = draw.random((20, len(COLUMNS))).astype(np.float32)
    scores = np.sort(draw.random(20).astype(np.float32))[::-1]
    features[:, COLUMNS.index("sasrec__score")] = scores
    features[:, COLUMNS.index("sasrec__place")] = np.arange(1, 21)
    features[:, TELLING] = 0.5
    if tells is not None and place >= 0:
        features[place, tells] = 0.9
    return Question(
        Target(f"user {number}", number, place + 1),
        Candidates(np.arange(1, 21), scores, np.full(20, 3, np.uint8)),
        features,
        place,
        Ranks(rank, rank, rank),
        bool(number % 2),
    )


@pytest.fixture(scope="module")
def questions() -> list[Question]:
    return [question(number, tells=TELLING, place=number % 20) for number in range(160)]


def test_what_tells_the_target_is_learnt_and_holds_for_listeners_not_seen(questions):
    scores = fitting.cross_fitted(questions, RECIPE)
    assert len(scores) == len(questions)
    ranks = [asked.rank(values) for asked, values in zip(questions, scores)]
    assert np.mean(np.array(ranks) == 1) > 0.95
    gains = fitting.gains(fitting.fit(questions, RECIPE))
    assert next(iter(gains)) == "listening"
    assert sum(gains.values()) == pytest.approx(1)


def test_out_of_fold_nobody_is_scored_by_trees_that_saw_them():
    # Of each listener the target has a number of its own, which only they bear: to have seen them
    # is to know the answer, and nothing else tells.
    own = []
    for number in range(160):
        asked = question(number, tells=None, place=number % 20)
        asked.features[:, TELLING] = number
        own.append(asked)
    recipe = replace(RECIPE, leaves=60, least_rows=1, rounds=60)
    seen = fitting.scores_of(fitting.fit(own, recipe), recipe, own)
    unseen = fitting.cross_fitted(own, recipe)
    ranks = [
        np.mean([asked.rank(values) for asked, values in zip(own, of)]) for of in (seen, unseen)
    ]
    assert ranks[0] < 2
    assert ranks[1] > 7


def test_the_plays_of_one_listener_are_in_one_fold(questions):
    ids = [f"user {number % 37}" for number in range(200)]
    folds = fitting.folds(ids, RECIPE)
    assert {len({*folds[np.array(ids) == one]}) for one in ids} == {1}
    assert {*folds.tolist()} == {0, 1, 2, 3}


def test_the_same_seed_grows_the_same_trees(questions):
    grown = [fitting.fit(questions, RECIPE).model_to_string() for _ in range(2)]
    assert grown[0] == grown[1]


def test_questions_without_their_target_among_the_candidates_teach_nothing(questions):
    lost = [question(number, tells=TELLING, place=-1) for number in range(500, 540)]
    with_them = fitting.fit([*questions, *lost], RECIPE).model_to_string()
    assert with_them == fitting.fit(questions, RECIPE).model_to_string()
    with pytest.raises(DataError, match="in 0 of 40 questions"):
        fitting.fit(lost, RECIPE)


def test_a_ranker_that_travelled_says_what_it_said(questions):
    booster = fitting.fit(questions, RECIPE)
    plays = np.array([7, 0, 1])
    trained = fitting.trained_ranker(booster, RECIPE, plays, {}, is_active=True)
    ranker = Ranker.load(trained)
    matrix = questions[0].features
    expected = booster.predict(matrix) + matrix[:, COLUMNS.index("sasrec__score")]
    np.testing.assert_allclose(ranker.scores(matrix), expected, rtol=1e-6)
    assert ranker.log_plays == pytest.approx([0, np.log(8), 0, np.log(2)])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"columns": (*COLUMNS, "graph__more")}, "such as graph__more"),
        ({"columns": COLUMNS[::-1]}, "in another order"),
        ({"text": "no trees"}, "cannot be read"),
    ],
)
def test_a_ranker_that_is_not_of_this_code_is_refused(questions, changes, said):
    booster = fitting.fit(questions, replace(RECIPE, rounds=1))
    trained = fitting.trained_ranker(booster, RECIPE, np.ones(3, int), {}, is_active=True)
    with pytest.raises(BundleError, match=said):
        Ranker.load(replace(trained, **changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rounds": 0}, "rounds=0"),
        ({"folds": 1}, "folds=1"),
        ({"learning_rate": 0.0}, "learning_rate=0.0"),
        ({"l2": -1.0}, "l2=-1.0"),
    ],
)
def test_a_recipe_that_cannot_work_is_named(changes, said):
    with pytest.raises(ConfigError, match=said):
        replace(RECIPE, **changes)


def test_a_tie_with_the_target_counts_against_it():
    asked = question(1, tells=None, place=3)
    assert asked.rank(np.zeros(20)) == 20
    scores = np.zeros(20)
    scores[[3, 4]] = 1
    assert asked.rank(scores) == 2
    assert question(1, tells=None, place=-1, rank=77).rank(np.zeros(20)) == 77


def test_figures_are_of_all_orders_over_the_same_targets():
    outcomes = [
        verdict.Outcome(sasrec=1, unranked=1, pipeline=1, sources=1, is_repeat=False),
        verdict.Outcome(sasrec=2, unranked=3, pipeline=1, sources=2, is_repeat=True),
        verdict.Outcome(sasrec=200, unranked=200, pipeline=150, sources=0, is_repeat=False),
        verdict.Outcome(sasrec=1, unranked=NEVER, pipeline=NEVER, sources=0, is_repeat=False),
    ]
    found = verdict.metrics_of(outcomes)
    assert found["sasrec/ndcg_10"] == pytest.approx((1 + 1 / np.log2(3) + 1) / 4)
    assert found["unranked/ndcg_10"] == pytest.approx(1.5 / 4)
    assert found["pipeline/ndcg_10"] == pytest.approx(2 / 4)
    assert found["pipeline/repeat/ndcg_10"] == pytest.approx(1)
    assert found["pipeline/lead_ndcg_10"] == pytest.approx(0.125)
    low, high = (found[f"pipeline/lead_ndcg_10_{end}"] for end in ("low", "high"))
    assert low < 0.125 < high
    assert (found["candidates/recall"], found["candidates/banned"]) == (0.5, 0.25)
    assert (found["candidates/sasrec"], found["candidates/only_repeat"]) == (0.25, 0.25)
    assert "pipeline/lead_ndcg_10_low" not in verdict.metrics_of(outcomes[:1])
