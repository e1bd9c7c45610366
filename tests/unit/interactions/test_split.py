import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musicrec.errors import ConfigError, DataError
from musicrec.interactions.sequence import Sequences, spans
from musicrec.interactions.split import cold_counts, leave_one_out, temporal


def sequences(histories: list[list[tuple[int, int]]], timed: bool = True) -> Sequences:
    """From ``(time, item)`` pairs per listener."""
    histories = [sorted(history, key=lambda play: play[0]) for history in histories]
    plays = [play for history in histories for play in history]
    return Sequences(
        items=np.array([item for _, item in plays], dtype=np.int32),
        offsets=np.cumsum([0] + [len(history) for history in histories]),
        times=np.array([time for time, _ in plays], dtype=np.int64),
        catalogue_size=max((item for _, item in plays), default=0),
        timed=timed,
    )


plays = st.tuples(st.integers(0, 50), st.integers(1, 9))
many_histories = st.lists(st.lists(plays, max_size=12), min_size=1, max_size=8).map(sequences)


def test_leave_one_out_asks_for_the_last_two():
    data = sequences([[(t, t + 1) for t in range(5)]])
    split = leave_one_out(data)
    assert split.train.tolist() == [3]
    assert split.val.items(data).tolist() == [4]
    assert split.test.items(data).tolist() == [5]


def test_listeners_with_less_than_three_plays_train_and_are_not_asked():
    data = sequences([[(0, 1), (1, 2)], [(0, 1), (1, 2), (2, 3)]])
    split = leave_one_out(data)
    assert split.train.tolist() == [2, 1]
    assert split.test.listeners.tolist() == split.val.listeners.tolist() == [1]


def test_nobody_to_ask_is_said():
    with pytest.raises(DataError, match="three interactions"):
        leave_one_out(sequences([[(0, 1)]]))


@given(many_histories)
def test_leave_one_out_never_trains_on_a_target(data):
    try:
        split = leave_one_out(data)
    except DataError:
        return
    for targets in (split.val, split.test):
        assert (targets.positions >= split.train[targets.listeners]).all()
        assert (targets.positions >= targets.known[targets.listeners]).all()
        assert (targets.positions >= 1).all()
    assert (split.test.positions == split.val.positions + 1).all()


@given(many_histories, st.sampled_from(["last", "all"]))
def test_temporal_cuts_everyone_at_the_same_two_moments(data, target):
    try:
        split = temporal(data, 0.5, 0.8, target)
    except DataError:
        return
    train = data.times[spans(data.offsets[:-1], split.train)]
    known_at_test = data.times[spans(data.offsets[:-1], split.test.known)]
    val_times, test_times = (
        data.times[data.offsets[targets.listeners] + targets.positions]
        for targets in (split.val, split.test)
    )
    assert train.max(initial=-1) < val_times.min()
    assert max(val_times.max(), known_at_test.max(initial=-1)) < test_times.min()


@given(many_histories)
def test_temporal_asks_each_listener_once_for_the_last_play_of_a_period(data):
    try:
        split = temporal(data, 0.5, 0.8, "last")
    except DataError:
        return
    assert len(set(split.test.listeners.tolist())) == len(split.test)
    assert (split.test.positions == data.lengths[split.test.listeners] - 1).all()


@given(many_histories)
def test_temporal_all_asks_for_every_play_that_has_a_history(data):
    try:
        split = temporal(data, 0.5, 0.8, "all")
    except DataError:
        return
    in_period = (data.lengths - split.test.known).sum()
    assert len(split.test) + split.test.without_history == in_period


def test_equal_times_fall_on_one_side_of_a_cut():
    data = sequences([[(t, 1) for t in (1, 1, 2, 2, 2, 2, 3, 3)], [(1, 1), (2, 1), (3, 1)]])
    split = temporal(data, 0.3, 0.8)
    assert split.train.tolist() == [2, 1]
    assert split.test.known.tolist() == [6, 2]


def test_an_untimed_dataset_refuses_the_temporal_split():
    with pytest.raises(ConfigError, match="split=leave_one_out"):
        temporal(sequences([[(0, 1), (1, 2)]], timed=False))


@pytest.mark.parametrize("quantiles", [(0.9, 0.8), (0, 0.5), (0.5, 1)])
def test_quantiles_must_rise_between_zero_and_one(quantiles):
    with pytest.raises(ConfigError, match=r"split\.val_quantile"):
        temporal(sequences([[(0, 1), (1, 2)]]), *quantiles)


def test_cold_items_and_listeners_are_counted():
    data = sequences(
        [
            [(0, 1), (1, 2), (2, 1), (8, 1), (9, 7)],  # 7 is played by nobody before
            [(7, 1), (9, 2)],  # nothing before the cuts
        ]
    )
    counts = cold_counts(data, temporal(data, 0.45, 0.8))
    assert counts == {"cold_items": 1, "cold_listeners": 1, "without_history": 0}
