"""Scores of the whole catalogue, alone or together with whoever waits."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest
import torch

from musicrec.errors import ServingError
from musicrec.models.sasrec import SASRec
from musicrec.serving import scoring
from musicrec.serving.candidates import Proposals
from musicrec.serving.scoring import Question, Scorer, Scoring

ITEMS = 300
PADDING = np.zeros(1, np.int64)


def model_of(seed: int) -> SASRec:
    torch.manual_seed(seed)
    model = SASRec(catalogue_size=ITEMS, max_length=12, dim=8, heads=2, blocks=1, transitions=4)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.3)
        model.item_embedding.weight[0] = 0
    played = torch.randint(1, ITEMS + 1, (500,))
    model.remember(played[:-1], played[1:])
    return model.eval()


@pytest.fixture(scope="module")
def model() -> SASRec:
    return model_of(0)


def question(items, num: int = 20, proposed=(), banned=PADDING) -> Question:
    proposals = Proposals(np.array(proposed, np.int64), np.zeros(len(proposed), np.uint8))
    return Question(np.asarray(items, np.int64), np.asarray(banned), proposals, num)


def expected(model: SASRec, items) -> np.ndarray:
    with torch.inference_mode():
        return model(torch.tensor([list(items)[-12:]]))[0].numpy()


HISTORIES = [[5], [7, 8, 9], list(range(1, 31)), [2, 2, 2, 250]]


def test_a_batch_scores_each_history_as_the_model_alone_does(model):
    answers = Scoring(model).answers([question(items, proposed=[3, 40]) for items in HISTORIES])
    for items, answer in zip(HISTORIES, answers, strict=True):
        scores = expected(model, items)
        assert answer.best.tolist() == np.argsort(-scores, kind="stable")[:20].tolist()
        np.testing.assert_allclose(answer.best_scores, scores[answer.best], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(answer.proposed_scores, scores[[3, 40]], rtol=1e-4, atol=1e-5)


def test_an_answer_is_not_touched_by_the_next_batch(model):
    ready = Scoring(model)
    (first,) = ready.answers([question([5])])
    kept = first.best_scores.copy(), first.best.copy()
    ready.answers([question([250, 3])])
    assert (first.best_scores == kept[0]).all()
    assert (first.best == kept[1]).all()


def test_what_is_banned_is_never_among_the_best(model):
    (free,) = Scoring(model).answers([question([7, 8])])
    banned = np.sort(np.array([0, *free.best[:5]]))
    (answer,) = Scoring(model).answers([question([7, 8], banned=banned)])
    assert answer.best[:15].tolist() == free.best[5:].tolist()


def test_whoever_waits_while_the_thread_works_is_answered_in_one_batch(model):
    sizes: list[int] = []
    go = threading.Event()

    class Slow(Scoring):
        def answers(self, questions):
            sizes.append(len(questions))
            go.wait(10)
            return super().answers(questions)

    async def ask_all() -> None:
        scorer, ready = Scorer(), Slow(model)
        questions = [question([place + 1]) for place in range(9)]
        asked = [asyncio.create_task(scorer.ask(ready, each)) for each in questions]
        while not sizes:
            await asyncio.sleep(0.001)
        go.set()
        answers = await asyncio.gather(*asked)
        for place, answer in enumerate(answers):
            assert answer.best[0] == expected(model, [place + 1]).argmax()
        scorer.close()

    asyncio.run(ask_all())
    assert sum(sizes) == 9
    assert len(sizes) <= 3


def test_each_is_scored_by_the_model_it_asked_also_while_models_are_swapped(model):
    other = model_of(1)

    async def ask_all() -> None:
        scorer, ready = Scorer(), {id(each): Scoring(each) for each in (model, other)}
        models = [(model, other)[place % 2] for place in range(12)]
        answers = await asyncio.gather(
            *(scorer.ask(ready[id(each)], question([7, 8, 9])) for each in models)
        )
        for each, answer in zip(models, answers, strict=True):
            assert answer.best[0] == expected(each, [7, 8, 9]).argmax()
        scorer.close()

    asyncio.run(ask_all())


def test_a_model_that_fails_is_told_to_who_asked_and_the_thread_lives_on(model):
    class Broken(Scoring):
        def answers(self, questions):
            raise RuntimeError("no")

    async def ask() -> None:
        scorer = Scorer()
        with pytest.raises(RuntimeError, match="no"):
            await scorer.ask(Broken(model), question([1]))
        assert len((await scorer.ask(Scoring(model), question([1]))).best) == 20
        scorer.close()

    asyncio.run(ask())


def test_where_too_many_wait_the_next_is_sent_away(model, monkeypatch):
    monkeypatch.setattr(scoring, "MAX_WAITING", 2)

    async def ask() -> None:
        scorer, ready = Scorer(), Scoring(model)
        results = await asyncio.gather(
            *(scorer.ask(ready, question([1])) for _ in range(3)), return_exceptions=True
        )
        assert [type(result) for result in results].count(ServingError) == 1
        scorer.close()

    asyncio.run(ask())
