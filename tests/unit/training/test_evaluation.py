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


@pytest.mark.parametrize(
    ("length", "items", "lengths"), [(2, [2, 5, 3], [2, 1]), (9, [5, 2, 5, 3], [3, 1])]
)
def test_the_newest_items_of_each_history_are_taken(length, items, lengths):
    newest = ASKED.newest(length)
    assert [part.tolist() for part in newest] == [items, lengths]


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


#: From what holds one target of these to what holds all.
memories = st.floats(1e-6, 0.05)


def questions_of(data, memory_mb=1.0, **share) -> QuestionDataset:
    targets = leave_one_out(data).test
    return QuestionDataset(data, targets, memory_mb=memory_mb, max_length=5, dim=8, **share)


@given(listening(), memories)
def test_every_target_is_asked_once_with_all_that_came_before(data, memory_mb):
    asked = []
    for batch in questions_of(data, memory_mb):
        parts = batch.history.split(batch.lengths.tolist())
        asked += [(*part.tolist(), t) for part, t in zip(parts, batch.target.tolist())]
    assert sorted(asked) == sorted(tuple(data.of(u).tolist()) for u in range(data.num_listeners))


@given(listening())
def test_the_longest_histories_are_asked_first(data):
    lengths = [n for batch in questions_of(data, 0.01) for n in batch.lengths.tolist()]
    assert lengths == sorted(lengths, reverse=True)


@pytest.mark.parametrize(("memory_mb", "batches"), [(1.0, 1), (0.02, 4), (1e-6, 20)])
def test_a_batch_holds_as_many_targets_as_its_memory(memory_mb, batches):
    data = Sequences(
        items=np.ones(60, dtype=np.int32),
        offsets=np.arange(0, 61, 3),
        times=np.zeros(60, dtype=np.int64),
        catalogue_size=200,
    )
    # A target takes 10 * 201 bytes of scores, 64 * 8 * 2 of the model's and 128 * 2 of history.
    assert len(questions_of(data, memory_mb)) == batches


@given(listening(), memories, st.sampled_from(["keep", "drop"]))
def test_the_memory_changes_no_metric(data, memory_mb, seen):
    def score(asked):  # some fixed function of history alone
        scores = torch.sin(
            torch.arange(10.0) * (asked.history[asked.lengths.cumsum(0) - 1])[:, None]
        )
        scores[:, 0] = float("-inf")
        return scores

    def values(memory_mb):
        return judge(score, questions_of(data, memory_mb), seen=seen).values

    assert values(memory_mb) == values(1)


@given(listening(), st.integers(2, 3))
def test_ranks_share_the_targets_without_overlap(data, world_size):
    orders = [
        questions_of(data, rank=r, world_size=world_size).order.tolist() for r in range(world_size)
    ]
    assert sorted(place for order in orders for place in order) == list(range(data.num_listeners))


def test_another_seen_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="seen='never' is not one of keep"):
        check_seen("never")
