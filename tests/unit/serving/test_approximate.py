"""An index instead of the whole catalogue: what it finds is scored as exactly as ever."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from musicrec.models.sasrec import SASRec
from musicrec.serving.approximate import ApproximateScoring, scoring_of
from musicrec.serving.candidates import Proposals
from musicrec.serving.scoring import Question, Scoring

pytest.importorskip("faiss")

ITEMS = 2000
PADDING = np.zeros(1, np.int64)


@pytest.fixture(scope="module", params=["cosine", "dot"])
def model(request) -> SASRec:
    """Items in twenty clusters, with biases of repeats and transitions."""
    torch.manual_seed(3)
    made = SASRec(
        ITEMS, max_length=8, dim=16, heads=2, blocks=1, transitions=4, similarity=request.param
    )
    with torch.no_grad():
        centres = torch.randn(20, 16)
        noise = 0.1 * torch.randn(ITEMS, 16)
        made.item_embedding.weight[1:] = centres[torch.arange(ITEMS) % 20] + noise
        made.repeats.by_lag.bias.fill_(1.5)
        made.transitions[0].use.bias.fill_(2.0)
    played = torch.randint(1, ITEMS + 1, (4000,))
    made.remember(played[:-1], played[1:])
    return made.eval()


@pytest.fixture(scope="module")
def index(model) -> ApproximateScoring:
    return ApproximateScoring(model)


def questions(seed: int = 0, banned=PADDING, proposed=()) -> list[Question]:
    chance = np.random.default_rng(seed)
    proposals = Proposals(np.array(proposed, np.int64), np.zeros(len(proposed), np.uint8))
    return [
        Question(chance.integers(1, ITEMS + 1, length), banned, proposals, 50)
        for length in (1, 3, 8, 20)
    ]


def test_every_score_is_that_of_the_whole_catalogue(model, index):
    asked = questions(proposed=[3, 40, 1999])
    exact = Scoring(model).scores([question.items for question in asked])
    for scores, answer in zip(exact.numpy(), index.answers(asked), strict=True):
        np.testing.assert_allclose(answer.best_scores, scores[answer.best], rtol=1e-4, atol=1e-4)
        wanted = scores[[3, 40, 1999]]
        np.testing.assert_allclose(answer.proposed_scores, wanted, rtol=1e-4, atol=1e-4)
        assert (np.diff(answer.best_scores) <= 0).all()


def test_with_all_cells_looked_into_nothing_is_missed(model):
    index = ApproximateScoring(model, probed=1.0)
    asked = questions(seed=1)
    for exact, answer in zip(Scoring(model).answers(asked), index.answers(asked), strict=True):
        assert answer.best.tolist() == exact.best.tolist()


def test_most_of_the_best_are_found_in_few_cells(model, index):
    asked = [question for seed in range(20) for question in questions(seed)]
    exact = Scoring(model)
    found = [
        np.isin(exact.answers([question])[0].best, index.answers([question])[0].best).mean()
        for question in asked
    ]
    assert np.mean(found) > 0.8


def test_what_only_a_bias_brings_in_is_among_the_best(model, index):
    """A repeat far from the listener's taste is in no cell that is looked into."""
    question = questions()[2]
    heard = set(question.items.tolist())
    exact = set(Scoring(model).answers([question])[0].best.tolist())
    assert heard & exact
    assert heard & exact <= set(index.answers([question])[0].best.tolist())


def test_what_is_banned_costs_no_place(model, index):
    best = index.answers(questions())[3].best
    banned = np.unique(np.append(best[:40], 0))
    answer = index.answers(questions(banned=banned))[3]
    assert not np.isin(answer.best, banned).any()
    assert len(answer.best) == 50


def test_the_same_table_makes_the_same_index(model, index):
    again = ApproximateScoring(model)
    for one, other in zip(index.answers(questions()), again.answers(questions()), strict=True):
        assert one.best.tolist() == other.best.tolist()


def test_only_a_catalogue_above_the_setting_gets_an_index(model):
    assert type(scoring_of(model, None)) is Scoring
    assert type(scoring_of(model, ITEMS)) is Scoring
    assert type(scoring_of(model, ITEMS - 1)) is ApproximateScoring
