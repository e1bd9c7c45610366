from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musicrec.errors import ConfigError
from musicrec.interactions.sequence import Sequences
from musicrec.training.batches import BatchDataset, Place, ResumableSampler, windows


def sequences(lengths: list[int]) -> Sequences:
    """Item = its place in the flat array + 1, so every interaction is recognisable."""
    total = sum(lengths)
    return Sequences(
        items=np.arange(1, total + 1, dtype=np.int32),
        offsets=np.cumsum([0, *lengths]),
        times=np.arange(total, dtype=np.int64),
        catalogue_size=total,
    )


def dataset(lengths, *, max_length=4, batch_size=3, rank=0, world_size=1) -> BatchDataset:
    data = sequences(lengths)
    return BatchDataset(
        data,
        windows(data, data.lengths, max_length),
        batch_size=batch_size,
        seed=1,
        rank=rank,
        world_size=world_size,
    )


def transitions(batches) -> list[tuple[int, int]]:
    return [
        (item, target)
        for batch in batches
        for item, target in zip(batch.items.tolist(), batch.targets.tolist(), strict=True)
    ]


def epoch(data: BatchDataset, number: int = 0):
    return [data[Place(number, step)] for step in range(data.steps_per_epoch)]


lengths = st.lists(st.integers(0, 14), min_size=1, max_size=8).filter(lambda ls: max(ls) >= 2)


@given(lengths, st.integers(1, 6), st.integers(1, 5))
def test_an_epoch_asks_for_every_transition_exactly_once(lengths, max_length, batch_size):
    data = dataset(lengths, max_length=max_length, batch_size=batch_size)
    offsets = data.sequences.offsets
    expected = [
        (place + 1, place + 2)
        for start, end in pairwise(offsets)
        for place in range(start, end - 1)
    ]
    assert sorted(transitions(epoch(data))) == expected


@given(lengths, st.integers(1, 6))
def test_a_batch_holds_nothing_but_windows_the_longest_first(lengths, max_length):
    for batch in epoch(dataset(lengths, max_length=max_length)):
        sizes = batch.lengths.tolist()
        assert sizes == sorted(sizes, reverse=True)
        assert sum(sizes) == len(batch.items) == len(batch.targets)
        assert 1 <= sizes[-1] <= sizes[0] <= max_length


@given(lengths, st.integers(1, 6))
def test_within_a_window_each_target_is_the_next_item(lengths, max_length):
    for batch in epoch(dataset(lengths, max_length=max_length)):
        sizes = batch.lengths.tolist()
        for items, targets in zip(batch.items.split(sizes), batch.targets.split(sizes)):
            assert items[1:].equal(targets[:-1])


def test_the_newest_window_is_full_and_the_oldest_takes_the_rest():
    data = sequences([8])
    cut = windows(data, data.lengths, max_length=3)
    assert list(zip(cut.starts.tolist(), cut.lengths.tolist())) == [(4, 4), (1, 4), (0, 2)]


def test_newest_keeps_one_window_a_listener_and_the_last_of_it():
    data = sequences([8, 1, 3])
    cut = windows(data, data.lengths, max_length=3, which="newest")
    assert list(zip(cut.starts.tolist(), cut.lengths.tolist())) == [(4, 4), (9, 3)]


def test_another_choice_of_windows_is_refused():
    data = sequences([3])
    with pytest.raises(ConfigError, match="windows='oldest' is not one of all, newest"):
        windows(data, data.lengths, 3, which="oldest")


def test_only_the_prefix_is_trained_on():
    data = sequences([6, 5])
    cut = windows(data, np.array([4, 0]), max_length=10)
    assert (cut.starts.tolist(), cut.lengths.tolist()) == ([0], [4])


def test_a_batch_depends_on_seed_epoch_and_step_alone():
    fresh, used = dataset([9, 9, 9, 9]), dataset([9, 9, 9, 9])
    epoch(used, 0)
    epoch(used, 7)
    assert fresh[Place(3, 1)].items.equal(used[Place(3, 1)].items)


def test_epochs_differ_in_order():
    data = dataset([9] * 20)
    assert transitions(epoch(data, 0)) != transitions(epoch(data, 1))


@given(lengths, st.integers(1, 3))
def test_ranks_share_an_epoch_without_overlap(lengths, world_size):
    alone = sorted(transitions(epoch(dataset(lengths))))
    ranks = [dataset(lengths, rank=r, world_size=world_size) for r in range(world_size)]
    together = [pair for rank in ranks for pair in transitions(epoch(rank))]
    assert sorted(together) == alone


@given(lengths, st.integers(1, 3))
def test_every_rank_knows_how_many_tokens_the_step_has(lengths, world_size):
    ranks = [dataset(lengths, rank=r, world_size=world_size) for r in range(world_size)]
    for shares in zip(*map(epoch, ranks), strict=True):
        assert {share.step_tokens for share in shares} == {sum(len(s.items) for s in shares)}


def test_a_rank_beyond_the_windows_of_a_batch_gets_none():
    share = dataset([5], rank=1, world_size=2)[Place(0, 0)]
    assert [len(part) for part in (share.items, share.targets, share.lengths)] == [0, 0, 0]
    assert share.step_tokens == 4


@pytest.mark.parametrize("done", [0, 1, 4, 5, 13])
def test_a_resumed_sampler_goes_on_where_it_stopped(done):
    steps = 5
    sampler = ResumableSampler(steps, lambda: Place(*divmod(done, steps)))
    rest = [place.epoch * steps + place.step for place in sampler]
    assert rest == list(range(done, (done // steps + 1) * steps))
