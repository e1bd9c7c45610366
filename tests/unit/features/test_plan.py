"""What is asked of Redis and made of its answers, with a dictionary in Redis' place."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from typing import Any

import hiredis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musicrec.errors import FeatureError
from musicrec.features import context as on_demand
from musicrec.features import layout
from musicrec.features.context import Context
from musicrec.features.plan import EVERYTHING, FeatureMatrix, ReadPlan, State
from musicrec.features.views import ALWAYS, BY_NAME, STORED, View

NOW = datetime(2024, 3, 12, 9, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
STATS, POPULARITY = BY_NAME["user_listening_stats"], BY_NAME["track_popularity"]
AUDIO, PAIRS = BY_NAME["track_audio_features"], BY_NAME["user_track_interactions"]
UNKNOWN = Context()

#: (view, ids in the order of the view's entities) to (stamp, values)
World = dict[tuple[View, tuple[str, ...]], tuple[datetime, list[float | None]]]


class Redis:
    """Hashes by key; answers a request as hiredis reads it from a server."""

    def __init__(self, world: World, project: str = "mine") -> None:
        self.hashes: dict[bytes, dict[bytes, bytes]] = {}
        for (view, ids), (stamp, numbers) in world.items():
            self.hash(view, ids, project).update(
                {layout.timestamp_field(view.name): layout.timestamp(stamp)}
                | dict(zip(layout.fields(view), map(layout.value, numbers)))
            )

    def hash(self, view: View, ids: tuple[str, ...], project: str = "mine") -> dict[bytes, bytes]:
        key = layout.key(layout.key_prefix(view.join_keys), ids[::-1], project.encode())
        return self.hashes.setdefault(key, {})

    def answer(self, request: bytes) -> list[Any]:
        reader = hiredis.Reader()
        reader.feed(request)
        replies = []
        while (command := reader.gets()) is not False:
            assert command[0] == b"HMGET"
            stored = self.hashes.get(command[1], {})
            replies.append([stored.get(field) for field in command[2:]])
        return replies


def read(
    world: World | Redis,
    user: str = "ann",
    tracks: list[str] | tuple[str, ...] = ("a",),
    plan: ReadPlan | None = None,
    context: Context = UNKNOWN,
    as_of: datetime | None = NOW,
) -> FeatureMatrix:
    redis = Redis(world) if isinstance(world, dict) else world
    plan = plan or ReadPlan("mine")
    replies = redis.answer(plan.encode(user, tracks))
    assert len(replies) == plan.num_replies(len(tracks))
    return plan.decode(replies, tracks, context, as_of)


def row(view: View, stamp: datetime, first: float | None = 1.0) -> tuple[datetime, list[Any]]:
    return stamp, [first] + [2.0] * (len(view.features) - 1)


def state_and_value(matrix: FeatureMatrix, view: View) -> tuple[int, float]:
    """Of the first candidate, the value being the view's first feature."""
    place, column = matrix.views.index(view.name), matrix.columns.index(view.columns[0])
    return int(matrix.states[0, place]), float(matrix.values[0, column])


def float32(number: float) -> float:
    return float(np.float32(number))


# A few ids, some of which are of several bytes a letter, so that they meet.
ids = st.sampled_from(["a", "b", "cc", "ñandú", "音楽", "x" * 300])
stamps = st.one_of(
    st.sampled_from([ALWAYS, NOW, NOW + MICROSECOND, NOW - MICROSECOND]),
    st.builds(
        lambda days, offset: NOW - timedelta(days=days) + offset * MICROSECOND,
        st.sampled_from([7, 30]),
        st.integers(-1, 1),
    ),
    st.datetimes(datetime(2024, 1, 1), datetime(2024, 4, 1), timezones=st.just(UTC)),
)
# 5 and the like: bytes that look like the tag of a value.
numbers = st.none() | st.floats(width=32, allow_nan=False) | st.sampled_from([7.6e-7, 1.5e-19])


@st.composite
def worlds(draw: st.DrawFn) -> World:
    world: World = {}
    for view in STORED:
        count = len(view.features)
        row = st.tuples(stamps, st.lists(numbers, min_size=count, max_size=count))
        keys = st.tuples(*[ids] * len(view.entities))
        world |= {(view, key): each for key, each in draw(st.dictionaries(keys, row)).items()}
    return world


@st.composite
def services(draw: st.DrawFn) -> dict[str, list[str]]:
    """Some of the views' features, in any order."""
    views = draw(st.lists(st.sampled_from(list(EVERYTHING)), min_size=1, unique=True))
    return {
        view: draw(st.lists(st.sampled_from(EVERYTHING[view]), min_size=1, unique=True))
        for view in views
    }


contexts = st.builds(
    Context,
    hour=st.none() | st.integers(0, 23),
    weekday=st.none() | st.integers(0, 6),
    device=st.none() | st.sampled_from(["", "Android 14", "Linux"]),
    session=st.none() | st.lists(ids),
)


def expected(
    world: World, user: str, track: str, service: dict[str, list[str]], context: Context
) -> tuple[dict[str, float], dict[str, State]]:
    """Values and states of one candidate, one by one."""
    found: dict[str, float] = {}
    states: dict[str, State] = {}
    for view in STORED:
        key = tuple({"user": user, "track": track}[entity] for entity in view.entities)
        stamp, numbers = world.get((view, key), (None, [None] * len(view.features)))
        if stamp is None:
            state = State.MISSING
        elif stamp > NOW or (view.ttl is not None and NOW - stamp > view.ttl):
            state = State.STALE
        else:
            state = State.FRESH
        states[view.name] = state
        for column, number in zip(view.columns, numbers):
            is_known = state == State.FRESH and number is not None
            found[column] = number if is_known else float("nan")
    energies = [np.array([found[name]], np.float32) for name in on_demand.STORED_INPUTS]
    found |= zip(on_demand.COLUMNS, on_demand.of_request(context, [track], *energies)[0].tolist())
    columns = [f"{view}__{name}" for view in service for name in service[view]]
    return {c: found[c] for c in columns}, {v: states[v] for v in service if v in states}


@given(worlds(), ids, st.lists(ids, max_size=6), services(), contexts)
def test_a_matrix_is_what_plain_python_finds(world, user, tracks, service, context):
    plan = ReadPlan("mine", service)
    matrix = read(world, user, tracks, plan, context)
    assert matrix.values.shape == (len(tracks), len(matrix.columns))
    assert matrix.states.shape == matrix.ages.shape == (len(tracks), len(matrix.views))
    assert (matrix.values.dtype, matrix.states.dtype, matrix.ages.dtype) == (
        np.float32,
        np.uint8,
        np.float32,
    )
    for place, track in enumerate(tracks):
        values, states = expected(world, user, track, service, context)
        assert sorted(matrix.columns) == sorted(values)
        assert matrix.views == tuple(states)
        assert matrix.states[place].tolist() == [int(state) for state in states.values()]
        np.testing.assert_array_equal(
            matrix.values[place], np.array([values[c] for c in matrix.columns], np.float32)
        )


def test_a_request_is_one_command_per_entity():
    plan = ReadPlan("mine")
    replies = Redis({}).answer(plan.encode("ann", ["a", "b", "a"]))
    assert len(replies) == plan.num_replies(3) == 1 + 3 + 3


def test_entities_that_nobody_asks_for_are_not_read():
    plan = ReadPlan("mine", {POPULARITY.name: ["plays_7d"]})
    assert len(Redis({}).answer(plan.encode("ann", ["a", "b"]))) == plan.num_replies(2) == 2


def test_another_projects_rows_are_not_seen():
    matrix = read(Redis({(STATS, ("ann",)): row(STATS, NOW)}, project="other"))
    assert state_and_value(matrix, STATS)[0] == State.MISSING


@pytest.mark.parametrize(
    ("age", "state"),
    [
        (timedelta(0), State.FRESH),
        (-MICROSECOND, State.STALE),
        (timedelta(days=7), State.FRESH),
        (timedelta(days=7) + MICROSECOND, State.STALE),
    ],
)
def test_a_row_is_fresh_from_its_stamp_to_its_time_to_live(age, state):
    matrix = read({(STATS, ("ann",)): row(STATS, NOW - age)})
    found, value = state_and_value(matrix, STATS)
    assert found == state
    assert (value == 1.0) == (state == State.FRESH)
    assert matrix.ages[0, 0] == float32(age.total_seconds())


def test_attributes_are_fresh_for_ever():
    matrix = read({(AUDIO, ("a",)): row(AUDIO, ALWAYS)}, as_of=datetime(2200, 1, 1, tzinfo=UTC))
    assert state_and_value(matrix, AUDIO) == (State.FRESH, 1.0)


def test_a_null_is_nan_in_a_fresh_row():
    state, value = state_and_value(read({(STATS, ("ann",)): row(STATS, NOW, None)}), STATS)
    assert state == State.FRESH
    assert np.isnan(value)


def test_values_without_a_stamp_are_a_missing_row():
    redis = Redis({(STATS, ("ann",)): row(STATS, NOW)})
    del redis.hash(STATS, ("ann",))[layout.timestamp_field(STATS.name)]
    state, value = state_and_value(read(redis), STATS)
    assert state == State.MISSING
    assert np.isnan(value)


def test_a_feature_that_a_row_does_not_have_yet_is_nan():
    redis = Redis({(STATS, ("ann",)): row(STATS, NOW)})
    del redis.hash(STATS, ("ann",))[layout.fields(STATS)[0]]
    state, value = state_and_value(read(redis), STATS)
    assert state == State.FRESH
    assert np.isnan(value)


def test_the_moment_is_now_unless_said_otherwise():
    stamp = datetime.now(UTC) - timedelta(seconds=5)
    matrix = read({(STATS, ("ann",)): row(STATS, stamp)}, as_of=None)
    assert state_and_value(matrix, STATS)[0] == State.FRESH
    assert 5 <= matrix.ages[0, 0] < 60


@pytest.mark.parametrize(
    ("coded", "number"),
    [
        (b"\x29" + struct.pack("<d", 0.1), float32(0.1)),
        (b"\x20\x07", 7.0),
        (b"\x20\x80\x80\x80\x01", 2.0**21),  # as long as a float32
        (b"\x18" + b"\xff" * 9 + b"\x01", -1.0),
        (b"\x38\x01", 1.0),
        (b"\x98\x01\x00", None),
    ],
    ids=["double", "int64", "int64-of-5-bytes", "negative-int32", "bool", "null_val"],
)
def test_numbers_that_others_wrote_are_read(coded, number):
    redis = Redis({(STATS, ("ann",)): row(STATS, NOW), (PAIRS, ("ann", "a")): row(PAIRS, NOW)})
    redis.hash(STATS, ("ann",))[layout.fields(STATS)[0]] = coded
    matrix = read(redis)
    state, value = state_and_value(matrix, STATS)
    assert state == State.FRESH
    assert value == number if number is not None else np.isnan(value)
    assert state_and_value(matrix, PAIRS) == (State.FRESH, 1.0)


@pytest.mark.parametrize(
    "coded",
    [b"5abc", b"5abcde", b"\x12\x01a", b"\xff" * 5, b"\x20\xff", b"\x29abcdefg"],
)
def test_what_is_no_number_is_named(coded):
    redis = Redis({(STATS, ("ann",)): row(STATS, NOW)})
    redis.hash(STATS, ("ann",))[layout.fields(STATS)[1]] = coded
    with pytest.raises(FeatureError, match=r"user_listening_stats__active_days_7d: .*materialize"):
        read(redis)


def test_a_number_too_large_for_float32_is_named():
    redis = Redis({(STATS, ("ann",)): row(STATS, NOW)})
    redis.hash(STATS, ("ann",))[layout.fields(STATS)[1]] = b"\x29" + struct.pack("<d", 1e300)
    with pytest.raises(FeatureError, match="user_listening_stats__active_days_7d"):
        read(redis)


@given(st.lists(st.integers(0, 12), min_size=6, max_size=6))
def test_values_of_wrong_sizes_never_shift_their_neighbours(sizes):
    redis = Redis({(STATS, ("ann",)): row(STATS, NOW)})
    for field, size in zip(layout.fields(STATS), sizes):
        redis.hash(STATS, ("ann",))[field] = b"5" * size
    if set(sizes) <= {0, 5}:
        found = read(redis).values[0, :6]
        whole = struct.unpack("<f", b"5555")[0]
        np.testing.assert_array_equal(found, [whole if size else np.nan for size in sizes])
    else:
        with pytest.raises(FeatureError, match="user_listening_stats__"):
            read(redis)


@pytest.mark.parametrize(
    "coded", [b"\x08", b"\x08\xff\xff", b"garbage", b"\x08\x00", b"\xff" * 300]
)
def test_a_stamp_that_is_none_is_named(coded):
    redis = Redis({(POPULARITY, ("a",)): row(POPULARITY, NOW)})
    redis.hash(POPULARITY, ("a",))[layout.timestamp_field(POPULARITY.name)] = coded
    with pytest.raises(FeatureError, match=r"track_popularity: its stamp .*materialize"):
        read(redis)


def test_an_error_of_redis_makes_every_view_unavailable():
    plan = ReadPlan("mine")
    replies = Redis({(STATS, ("ann",)): row(STATS, NOW)}).answer(plan.encode("ann", ["a"]))
    replies[-1] = hiredis.ReplyError("LOADING Redis is loading the dataset in memory")
    matrix = plan.decode(replies, ["a"], Context(hour=6), NOW)
    assert (matrix.states == State.UNAVAILABLE).all()
    assert "LOADING" in matrix.reason
    known = dict(zip(matrix.columns, matrix.values[0].tolist()))
    assert known.pop("context_aware_features__hour_sin") == 1.0
    known.pop("context_aware_features__hour_cos")
    assert np.isnan([*known.values()]).all()


def test_what_the_context_is_computed_from_is_read_but_not_shown():
    energies: World = {
        (AUDIO, ("a",)): (ALWAYS, [0.0, 0.75] + [0.0] * 7),
        (BY_NAME["user_audio_preferences"], ("ann",)): (NOW, [0.0, 0.5, 0.0, 0.0, 0.0]),
    }
    matrix = read(energies, plan=ReadPlan("mine", {on_demand.NAME: ["energy_gap"]}))
    assert matrix.columns == ("context_aware_features__energy_gap",)
    assert matrix.views == ()
    assert matrix.values.tolist() == [[0.25]]


def test_a_matrix_lies_in_rows_whatever_is_chosen():
    tracks_first = {view.name: EVERYTHING[view.name] for view in (POPULARITY, STATS)}
    on_demand_alone = {on_demand.NAME: ["energy_gap", "hour_sin"]}
    for features in (EVERYTHING, tracks_first, on_demand_alone):
        matrix = read({}, tracks=("a", "b"), plan=ReadPlan("mine", features))
        assert matrix.values.flags.c_contiguous


def test_a_stale_input_gives_no_feature_on_demand():
    old = NOW - timedelta(days=31)
    world: World = {
        (AUDIO, ("a",)): (ALWAYS, [0.0, 0.75] + [0.0] * 7),
        (BY_NAME["user_audio_preferences"], ("ann",)): (old, [0.0, 0.5, 0.0, 0.0, 0.0]),
    }
    assert np.isnan(read(world).values[0, -1])


@pytest.mark.parametrize(
    ("user", "tracks"),
    [
        ("", ["a"]),
        ("ann", ["a", ""]),
        ("ann", "abc"),
        (7, ["a"]),
        ("ann", [7]),
        ("ann", None),
        (b"ann", ["a"]),
        ("ann", ["\ud800"]),
        ("\ud800", ["a"]),
    ],
)
def test_ids_that_are_none_are_refused(user, tracks):
    with pytest.raises(FeatureError, match=r"user_id=.*track_ids="):
        ReadPlan("mine").encode(user, tracks)


@pytest.mark.parametrize("session", ["abc", [7], ["a", None]])
def test_a_session_that_is_no_list_of_ids_is_refused(session):
    with pytest.raises(FeatureError, match="session="):
        read({}, context=Context(session=session))


def test_a_moment_without_time_zone_is_refused():
    with pytest.raises(FeatureError, match="time zone"):
        read({}, as_of=datetime(2024, 3, 12))


def test_an_unknown_view_is_named_with_its_nearest():
    with pytest.raises(FeatureError, match=r"'track_populraity'.*'track_popularity'"):
        ReadPlan("mine", {"track_populraity": ["plays_7d"]})


def test_an_unknown_feature_is_named_with_its_nearest():
    with pytest.raises(FeatureError, match=r"track_popularity:plays_8d.*'plays_7d'"):
        ReadPlan("mine", {"track_popularity": ["plays_8d"]})


def test_a_service_without_features_is_refused():
    with pytest.raises(FeatureError, match="no feature"):
        ReadPlan("mine", {"track_popularity": []})
