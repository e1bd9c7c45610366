"""The best of a catalogue that is large enough to be looked at in blocks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from musicrec.models.sasrec import SASRec
from musicrec.serving.candidates import best_of
from musicrec.serving.scoring import Scoring


def sorted_best(scores: torch.Tensor, num: int) -> list[int]:
    numbers = scores.numpy()
    order = np.lexsort((np.arange(len(numbers)), -numbers))[:num]
    return [int(item) for item in order if numbers[item] > -np.inf]


@pytest.mark.parametrize("items", [1 << 15, 40_000, (1 << 16) + 1])
@pytest.mark.parametrize("num", [1, 10, 101, 400])
def test_the_best_are_those_of_a_full_sort(items, num):
    scores = torch.randn(items, generator=torch.Generator().manual_seed(num))
    best, values = best_of(scores, num)
    assert best.tolist() == sorted_best(scores, num)
    assert (values == scores.numpy()[best]).all()


@pytest.mark.parametrize("steps", [3, 50])
def test_equals_come_by_index_across_blocks(steps):
    generator = torch.Generator().manual_seed(steps)
    scores = torch.randint(0, steps, (50_001,), generator=generator).float()
    best, _ = best_of(scores, 200)
    assert best.tolist() == sorted_best(scores, 200)


def test_the_best_may_all_stand_beyond_the_last_whole_block():
    scores = torch.zeros(50_000 + 37)
    scores[-37:] = torch.arange(37.0) + 1
    best, _ = best_of(scores, 37)
    assert best.tolist() == list(range(50_036, 49_999, -1))


def test_what_is_banned_is_not_made_up_for():
    scores = torch.full((40_000,), -torch.inf)
    scores[[7, 39_999]] = torch.tensor([1.0, 2.0])
    best, _ = best_of(scores, 10)
    assert best.tolist() == [39_999, 7]


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_a_batch_that_is_scored_in_pieces_scores_as_the_model_does(similarity):
    torch.manual_seed(1)
    model = SASRec(9001, max_length=8, dim=16, heads=2, similarity=similarity, transitions=0).eval()
    histories = [np.array([1, 9001, 5]), np.array([4]), np.arange(1, 9)]
    padded = torch.zeros(3, 8, dtype=torch.int64)
    for row, items in enumerate(histories):
        padded[row, -len(items) :] = torch.from_numpy(items)
    with torch.inference_mode():
        expected = model(padded)
    scores = Scoring(model).scores(histories)
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-5)
