from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from musicrec.models.baselines import Markov, PersonalTop, Popularity

HISTORY = torch.tensor([1, 2, 1, 3, 4, 4])
LENGTHS = torch.tensor([4, 2])


def best(scores: torch.Tensor, k: int) -> list[list[int]]:
    return scores.topk(k, dim=1).indices.tolist()


def test_popularity_gives_everyone_the_most_played():
    scores = Popularity(torch.tensor([3, 3, 3, 2, 2, 1]), catalogue_size=5).scores(HISTORY, LENGTHS)
    assert best(scores, 3) == [[3, 2, 1], [3, 2, 1]]


def test_personal_top_orders_by_plays_then_by_recency():
    scores = PersonalTop(catalogue_size=5).scores(HISTORY, LENGTHS)
    assert best(scores, 3)[0] == [1, 3, 2]
    assert best(scores, 1)[1] == [4]


@given(st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=12), min_size=1, max_size=5))
def test_personal_top_equals_a_plain_count(histories):
    scores = PersonalTop(catalogue_size=5).scores(
        torch.tensor([item for history in histories for item in history]),
        torch.tensor([len(history) for history in histories]),
    )
    for row, history in zip(scores, histories):
        latest = {item: place for place, item in enumerate(history)}
        wanted = sorted(latest, key=lambda item: (-history.count(item), -latest[item]))
        assert row.topk(len(wanted)).indices.tolist() == wanted
        assert (row[1:] > 0).sum() == len(wanted)


def test_equal_counts_differ_by_popularity_however_large_they_are():
    before = torch.ones(60_000, dtype=torch.int64)
    after = torch.tensor([2, 3]).repeat(30_000)
    markov = Markov(
        torch.cat([before, torch.tensor([4])]), torch.cat([after, torch.tensor([2])]), 5
    )
    scores = markov.scores(torch.tensor([1]), torch.tensor([1]))
    assert scores[0, 2] > scores[0, 3]


def test_unheard_tracks_tie_in_personal_top():
    scores = PersonalTop(catalogue_size=5).scores(HISTORY, LENGTHS)
    assert scores[0, 4] == scores[0, 5] == 0


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=60))
def test_markov_counts_what_followed_the_last_track(pairs):
    before, after = (torch.tensor(side) for side in zip(*pairs))
    counts = Counter(pairs)
    scores = Markov(before, after, 6).scores(HISTORY, LENGTHS)
    for row, last in enumerate((3, 4)):
        for item in range(1, 7):
            assert int(scores[row, item]) == counts[last, item]


def test_markov_fills_up_with_popularity():
    markov = Markov(torch.tensor([3, 1, 1, 1]), torch.tensor([5, 2, 2, 4]), catalogue_size=5)
    assert best(markov.scores(torch.tensor([3]), torch.tensor([1])), 3) == [[5, 2, 4]]


@pytest.mark.parametrize(
    "baseline",
    [
        Popularity(torch.tensor([1, 2]), 5),
        PersonalTop(5),
        Markov(torch.tensor([1]), torch.tensor([2]), 5),
    ],
    ids=lambda baseline: type(baseline).__name__,
)
def test_padding_is_no_track(baseline):
    assert baseline.scores(HISTORY, LENGTHS)[:, 0].isneginf().all()
