import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from musicrec.errors import ConfigError
from musicrec.interactions.sequence import Sequences
from musicrec.interactions.split import leave_one_out
from musicrec.training.evaluation import (
    QuestionDataset,
    Questions,
    check_seen,
    exclude_heard,
    judge,
    repeats,
)

ASKED = Questions(
    history=torch.tensor([5, 2, 5, 3]), lengths=torch.tensor([3, 1]), target=torch.tensor([2, 4])
)


def test_the_newest_items_are_left_padded():
    assert ASKED.newest(2).tolist() == [[2, 5], [0, 3]]
    assert ASKED.newest(9).tolist() == [[5, 2, 5], [0, 0, 3]]


def test_a_target_in_its_own_history_is_a_repeat():
    assert repeats(ASKED).tolist() == [True, False]


def test_a_target_in_anothers_history_is_none():
    asked = ASKED._replace(target=torch.tensor([3, 5]))
    assert repeats(asked).tolist() == [False, False]


def test_heard_tracks_leave_the_ranking_of_their_listener_only():
    scores = exclude_heard(torch.zeros(2, 7), ASKED)
    assert scores[0].isneginf().nonzero().flatten().tolist() == [2, 5]
    assert scores[1].isneginf().nonzero().flatten().tolist() == [3]


@st.composite
def listening(draw):
    histories = draw(
        st.lists(st.lists(st.integers(1, 9), min_size=3, max_size=9), min_size=1, max_size=9)
    )
    return Sequences(
        items=np.array([i for h in histories for i in h], dtype=np.int32),
        offsets=np.cumsum([0] + [len(h) for h in histories]),
        times=np.zeros(sum(map(len, histories)), dtype=np.int64),
        catalogue_size=9,
    )


@given(listening(), st.integers(1, 4))
def test_every_target_is_asked_once_with_all_that_came_before(data, batch_size):
    questions = QuestionDataset(data, leave_one_out(data).test, batch_size=batch_size)
    asked = []
    for batch in questions:
        assert len(batch.target) <= batch_size
        parts = batch.history.split(batch.lengths.tolist())
        asked += [(*part.tolist(), t) for part, t in zip(parts, batch.target.tolist())]
    assert sorted(asked) == sorted(tuple(data.of(u).tolist()) for u in range(data.num_listeners))


@given(listening(), st.integers(1, 4), st.sampled_from(["keep", "drop"]))
def test_the_batch_size_changes_no_metric(data, batch_size, seen):
    def score(asked):  # some fixed function of history alone
        scores = torch.sin(
            torch.arange(10.0) * (asked.history[asked.lengths.cumsum(0) - 1])[:, None]
        )
        scores[:, 0] = float("-inf")
        return scores

    def values(size):
        questions = QuestionDataset(data, leave_one_out(data).test, batch_size=size)
        return judge(score, questions, seen=seen, catalogue_size=9).values

    assert values(batch_size) == values(100)


@given(listening(), st.integers(2, 3))
def test_ranks_share_the_targets_without_overlap(data, world_size):
    targets = leave_one_out(data).test
    orders = [
        QuestionDataset(data, targets, batch_size=2, rank=r, world_size=world_size).order.tolist()
        for r in range(world_size)
    ]
    assert sorted(place for order in orders for place in order) == list(range(len(targets)))


def test_another_seen_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="seen='never' is not one of keep"):
        check_seen("never")
