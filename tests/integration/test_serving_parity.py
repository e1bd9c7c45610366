"""The same listener at the same moment: the service live, and the offline evaluation."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

import ranker_world as world
from musicrec.cli.interests import remembered_interests
from musicrec.database.engine import Dataset
from musicrec.features.compute import compute
from musicrec.features.materialize import write
from musicrec.features.views import ALWAYS, STORED
from musicrec.registry.bundle import Bundle
from musicrec.serving import answering, fitting
from musicrec.serving.asking import Answer, Ask
from musicrec.serving.engine import Surroundings, made_engine
from musicrec.serving.fitting import Recipe
from musicrec.serving.past import PastListening, Target
from musicrec.serving.pipeline import Pipeline
from musicrec.serving.ranker import Ranker, log_plays_of
from musicrec.serving.ranking import COLUMNS
from musicrec.serving.recommending import RecommendService
from musicrec.serving.replay import Question, Replay
from musicrec.serving.scoring import Scoring
from musicrec.serving.track_keys import read_keys
from musicrec.sources import stream

pytestmark = pytest.mark.slow

RECIPE = Recipe(
    rounds=40,
    learning_rate=0.1,
    leaves=15,
    least_rows=5,
    l2=0.0,
    columns_share=0.5,
    truncation=20,
    base=1.0,
    folds=2,
    seed=3,
)


@pytest.fixture(scope="module")
def dataset(postgres) -> Iterator[Dataset]:
    with world.filled() as filled:
        yield filled


@dataclass
class Both:
    """A listener's question as the evaluation asks it, and all that the service did with it."""

    question: Question
    order: list[str]
    scores: np.ndarray
    answer: Answer
    features: np.ndarray


@pytest.fixture(scope="module")
def bundle(dataset, tmp_path_factory) -> Bundle:
    folder: Path = tmp_path_factory.mktemp("snapshots")
    return world.bundle_of(stream.snapshot(dataset, folder))


@pytest.fixture(scope="module")
def asked(dataset, bundle, redis) -> dict[str, Both]:
    """Every listener at the time of their last play, on both ways, by a ranker that was learnt."""
    for view in STORED:
        end = world.END if view.window else ALWAYS
        compute(dataset, view, [end])
        write(dataset, view, world.END, redis)
    plays = np.arange(len(world.IDS))
    log_plays = log_plays_of(plays)
    keys = read_keys(dataset, bundle.catalogue.track_ids)
    replay = Replay(
        dataset,
        bundle.catalogue,
        Scoring(bundle.model),
        "keep",
        Pipeline(),
        PastListening(dataset, keys, remembered_interests(dataset, bundle.catalogue)),
        log_plays,
    )
    targets = []
    for user, (track, at) in world.last_plays().items():
        if user in world.LISTENERS:
            micros = round(at.timestamp() * 1e6)
            targets.append(Target(user, micros, bundle.catalogue.indices([track])[0][0]))
    questions = list(replay.questions(targets))
    booster = fitting.fit(questions, RECIPE)
    pipeline = Pipeline(Ranker(booster, RECIPE.base, log_plays))
    trained = fitting.trained_ranker(booster, RECIPE, plays, {}, is_active=True)
    engine = made_engine(
        replace(bundle, ranker=trained), Surroundings(dataset, redis, remembered_interests)
    )
    answers, features = asyncio.run(live(engine, dataset, redis, questions))
    found = {}
    for question, answer, seen in zip(questions, answers, features):
        ranked = pipeline.ranked(question.candidates, question.features)
        found[question.target.user_id] = Both(
            question,
            world.ids_of(bundle, question.candidates.items[ranked.order]),
            ranked.scores[ranked.order],
            answer,
            seen,
        )
    return found


async def live(engine, dataset, redis, questions) -> tuple[list[Answer], list[np.ndarray]]:
    """What the service answers, one after the other, and the features that it ranked by."""
    seen: list[np.ndarray] = []

    def watched(*arguments, **named):
        seen.append(ranking_features(*arguments, **named))
        return seen[-1]

    service = RecommendService(lambda: engine, dataset=dataset, redis=redis, budget_seconds=10)
    ranking_features = answering.ranking_features
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answering, "ranking_features", watched)
        try:
            answers = []
            for question in questions:
                as_of = datetime.fromtimestamp(question.target.at / 1e6, UTC)
                ask = Ask(question.target.user_id, k=10, as_of=as_of)
                answers.append(await service.recommend(ask))
        finally:
            await service.close()
    return answers, seen


def test_the_service_recommends_what_the_evaluation_ranked_best(asked):
    assert len(asked) == world.NUM_LISTENERS
    for both in asked.values():
        assert both.answer.rung == "full"
        assert [track.track_id for track in both.answer.tracks] == both.order[:10]
        scores = [track.score for track in both.answer.tracks]
        assert scores == pytest.approx(both.scores[:10].tolist(), abs=1e-4)


def test_the_ranker_makes_another_order_than_the_model(asked, bundle):
    others = [
        both
        for both in asked.values()
        if both.order[:10] != world.ids_of(bundle, both.question.candidates.items[:10])
    ]
    assert len(others) > world.NUM_LISTENERS // 2


def test_every_feature_is_the_same_on_both_ways(asked):
    for both in asked.values():
        for place, column in enumerate(COLUMNS):
            np.testing.assert_allclose(
                both.features[:, place],
                both.question.features[:, place],
                rtol=1e-4,
                atol=1e-5,
                err_msg=column,
            )


@pytest.mark.parametrize(
    "column",
    [
        "graph__affinity",
        "source__graph",
        "source__popular",
        "source__repeat",
        "listening__liked",
        "listening__skip_share",
        "listening__in_session",
        "user_listening_stats__plays_7d",
        "user_track_interactions__plays_30d",
        "track_audio_features__energy",
        "track_popularity__plays_7d",
        "context_aware_features__is_in_session",
        "context_aware_features__session_plays",
    ],
)
def test_the_world_puts_every_kind_of_evidence_to_the_test(asked, column):
    values = np.concatenate([both.features[:, COLUMNS.index(column)] for both in asked.values()])
    assert len(np.unique(values[~np.isnan(values)])) > 1


def test_what_was_skipped_in_the_session_or_disliked_is_on_neither_way(asked, bundle):
    for user, both in asked.items():
        skipped = f"t{world.LISTENERS.index(user)}"
        assert skipped not in world.ids_of(bundle, both.question.candidates.items)
    assert "t3" not in world.ids_of(bundle, asked[world.LIKING].question.candidates.items)


def test_a_like_of_after_the_target_is_not_known_before_it(asked, bundle):
    both = asked[world.LIKING]
    liked = both.question.features[:, COLUMNS.index("listening__liked")] == 1
    assert world.ids_of(bundle, both.question.candidates.items[liked]) == ["t140"]
