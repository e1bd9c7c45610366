"""Rows spread over a Redis Cluster of three nodes: written, read, and followed where they go."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import numpy as np
import pytest

from musicrec.database import engine
from musicrec.features import layout, repository, upkeep
from musicrec.features.cluster import connected
from musicrec.features.connection import Connection
from musicrec.features.context import Context
from musicrec.features.online import AsyncOnlineStore, OnlineStore
from musicrec.features.plan import FeatureMatrix, ReadPlan, State
from musicrec.features.prune import prune
from musicrec.features.resp import encoded
from musicrec.features.slots import NUM_SLOTS, slot
from musicrec.features.views import BY_NAME, STORED
from plays import Play, store
from redis_cluster import SIZE, RedisCluster, wait

pytestmark = pytest.mark.slow

NOW = datetime(2024, 3, 12, tzinfo=UTC)
DAY = timedelta(days=1)
POPULARITY = BY_NAME["track_popularity"]
PREFIX = layout.key_prefix(POPULARITY.join_keys)
PATIENT = 20.0
KINDS = ["blocking", "asyncio"]

Read = Callable[..., FeatureMatrix]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[RedisCluster]:
    cluster = RedisCluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.stop()


@pytest.fixture
def open_either() -> Iterator[Callable[..., Read]]:
    """A way to read a project at an address, blocking or by asyncio."""
    with asyncio.Runner() as runner:
        closings = []

        def open_(kind: str, project: str, address: Any, timeout_seconds: float = PATIENT) -> Read:
            arguments = ReadPlan(project), address, timeout_seconds
            if kind == "blocking":
                blocking = OnlineStore(*arguments)
                closings.append(blocking.close)
                return blocking.read
            store = AsyncOnlineStore(*arguments)
            closings.append(lambda: runner.run(store.close()))
            return lambda *a, **k: runner.run(store.read(*a, **k))

        yield open_
        for close in closings:
            close()


@pytest.fixture(params=KINDS)
def open_read(request, open_either) -> Callable[..., Read]:
    return partial(open_either, request.param)


def key(project: str, track: str) -> bytes:
    return layout.key(PREFIX, (track,), project.encode())


def put(cluster: RedisCluster, project: str, values: dict[str, float]) -> None:
    """Popularity rows of ``NOW``, each at its node."""
    words = [layout.timestamp_field(POPULARITY.name), layout.timestamp(NOW)]
    commands = []
    for track, value in values.items():
        pairs = [w for f in layout.fields(POPULARITY) for w in (f, layout.value(value))]
        commands.append(encoded(b"HSET", key(project, track), *words, *pairs))
    with connected(cluster.address) as nodes:
        for redis, places in nodes.by_node(memoryview(b"".join(commands))):
            redis.ask(b"".join(commands[place] for place in places), len(places))


def popularity(matrix: FeatureMatrix) -> list[float]:
    assert matrix.reason is None
    return matrix.values[:, matrix.columns.index(POPULARITY.columns[0])].tolist()


def assert_unavailable(matrix: FeatureMatrix, reason: str) -> None:
    assert (matrix.states == State.UNAVAILABLE).all()
    assert np.isnan(matrix.values).all()
    assert reason in matrix.reason
    assert "\n" not in matrix.reason
    assert "geheim" not in matrix.reason


@pytest.fixture(scope="module")
def everywhere(cluster) -> tuple[str, dict[int, str]]:
    """A project with a track in every slot, whose popularity is the slot's number."""
    project = f"test_{uuid.uuid4().hex}"
    tracks: dict[int, str] = {}
    number = 0
    while len(tracks) < NUM_SLOTS:
        track = f"{number}" if number % 3 else f"{{{number}}} 🎵 }}{{"
        tracks.setdefault(slot(key(project, track)), track)
        number += 1
    put(cluster, project, {track: place for place, track in tracks.items()})
    return project, tracks


def test_slots_are_those_of_redis(cluster):
    chance = random.Random(3)
    keys = [bytes(chance.choices(b"{}ab\r\n\xff\0", k=chance.randrange(12))) for _ in range(2000)]
    asked = b"".join(encoded(b"CLUSTER", b"KEYSLOT", each) for each in keys)
    with Connection(cluster.nodes[0]) as connection:
        assert connection.ask(asked, len(keys)) == [slot(each) for each in keys]


def test_what_was_written_is_read_from_every_slot(cluster, everywhere, open_read):
    project, tracks = everywhere
    places = [cluster.ask(place, "DBSIZE") for place in range(SIZE)]
    assert min(places) > NUM_SLOTS // SIZE - 2
    read = open_read(project, cluster.address)
    slots = random.Random(1).sample(range(NUM_SLOTS), NUM_SLOTS)
    for start in range(0, NUM_SLOTS, 4096):
        some = slots[start : start + 4096]
        matrix = read("ann", [tracks[each] for each in some], Context(), NOW)
        assert popularity(matrix) == some
    matrix = read("ann", ["no track", tracks[5], "nor this", tracks[5]], Context(), NOW)
    np.testing.assert_array_equal(popularity(matrix), [np.nan, 5, np.nan, 5])
    assert read("ann", [], Context(), NOW).values.shape == (0, len(matrix.columns))


def test_many_requests_at_once_get_their_own_answers(cluster, everywhere):
    project, tracks = everywhere

    async def read_all() -> None:
        async with AsyncOnlineStore(ReadPlan(project), cluster.address, PATIENT) as redis:

            async def read(first: int) -> None:
                slots = [(first + n * 701) % NUM_SLOTS for n in range(20)]
                matrix = await redis.read("ann", [tracks[n] for n in slots], Context(), NOW)
                assert popularity(matrix) == slots

            await asyncio.gather(*(read(n) for n in range(0, NUM_SLOTS, 40)))

    asyncio.run(read_all())


def test_a_slot_that_moves_is_followed(cluster, everywhere, open_read):
    project, tracks = everywhere
    read = open_read(project, cluster.address)
    slots = [100, 6000, 16000]
    ids = [tracks[each] for each in slots]
    assert popularity(read("ann", ids, Context(), NOW)) == slots
    for source, target in ((0, 2), (2, 0)):
        cluster.start_moving(100, source, target)
        assert_unavailable(read("ann", ids, Context(), NOW), "ASK 100")
        assert popularity(read("ann", ids[1:], Context(), NOW)) == slots[1:]
        cluster.end_moving(100, target)
        assert popularity(read("ann", ids, Context(), NOW)) == slots
        assert popularity(read("ann", ids, Context(), NOW)) == slots


def test_a_dead_node_is_unavailable_until_it_is_back(cluster, everywhere, open_either):
    project, tracks = everywhere
    reads = [open_either(kind, project, cluster.address) for kind in KINDS]
    dead = [n for n in range(NUM_SLOTS) if n * SIZE // NUM_SLOTS == 0]
    alive = set(range(NUM_SLOTS)).difference(dead)
    user = next(u for u in map(str, range(99)) if slot(user_key(project, u)) in alive)
    # The row of the user with a candidate is at any node, too.
    safe = [n for n in alive if slot(pair_key(project, user, tracks[n])) in alive][:20]
    wanted, some = [tracks[n] for n in safe], [*safe, *dead[:20]]
    for read in reads:
        assert popularity(read(user, wanted, Context(), NOW)) == safe
    cluster.kill(0)
    try:
        for read in reads * 5:
            matrix = read(user, [tracks[n] for n in some], Context(), NOW)
            assert_unavailable(matrix, f"{cluster.nodes[0].place}: ")
        for read in reads * 5:
            assert popularity(read(user, wanted, Context(), NOW)) == safe
    finally:
        cluster.start(0)
    cluster.wait_until_whole()
    for read in reads:
        assert popularity(read(user, [tracks[n] for n in some], Context(), NOW)) == some


def user_key(project: str, user: str) -> bytes:
    return layout.key(layout.key_prefix(("user_id",)), (user,), project.encode())


def pair_key(project: str, user: str, track: str) -> bytes:
    return layout.key(layout.key_prefix(("user_id", "track_id")), (track, user), project.encode())


def test_a_node_that_never_answers_is_given_up_in_time(cluster, everywhere, open_read):
    project, tracks = everywhere
    read = open_read(project, cluster.address, timeout_seconds=0.3)
    ids = [tracks[each] for each in (100, 6000, 16000)]
    with Connection(cluster.nodes[1]) as redis:
        redis.ask(encoded(b"CLIENT", b"PAUSE", b"700"), 1)
        assert_unavailable(read("ann", ids, Context(), NOW), "in time")
    wait(lambda: cluster.ask(1, "PING") == b"PONG")
    assert popularity(read("ann", ids, Context(), NOW)) == [100, 6000, 16000]


def test_a_server_that_is_no_cluster_is_unavailable(open_read, redis):
    matrix = open_read("any", replace(redis, is_cluster=True))("ann", ["a"])
    assert_unavailable(matrix, "cluster support disabled")


def test_one_node_taken_for_a_server_is_unavailable(cluster, everywhere, open_read):
    project, tracks = everywhere
    matrix = open_read(project, cluster.nodes[0])("ann", [tracks[16000]])
    assert_unavailable(matrix, "MOVED")


# Materialized


CHANCE = random.Random(4)
TRACKS: dict[str, dict[str, Any]] = {f"track {n} {{}}": {"energy": n / 60} for n in range(60)}
PLAYS = [
    Play(f"{{user {CHANCE.randrange(30)}}}", CHANCE.choice(list(TRACKS)), NOW - DAY * at, ms=9000)
    for at in (CHANCE.uniform(0, 40) for _ in range(900))
]


@pytest.fixture(scope="module")
def listened(postgres, cluster) -> Iterator[tuple[Any, Any]]:
    """A dataset that was materialized into the cluster, and Feast's own store of it."""
    with engine.open_dataset(f"test_{uuid.uuid4().hex[:16]}", create=True) as dataset:
        store(dataset, PLAYS, TRACKS)
        feast = upkeep.prepared(dataset, cluster.address)
        outcomes = upkeep.bring(dataset, STORED, NOW, feast, cluster.address)
        assert upkeep.stale(outcomes) is None
        yield dataset, feast
    engine.drop_dataset(dataset.name)


def hashes(address: Any, project: str) -> dict[bytes, list[bytes]]:
    found = {}
    with connected(address) as nodes:
        for redis in nodes.all:
            (keys,) = redis.ask(encoded(b"KEYS", b"*" + project.encode()), 1)
            asked = [encoded(b"HGETALL", each) for each in keys]
            found |= dict(zip(keys, redis.ask(b"".join(asked), len(keys))))
    return found


def test_feasts_own_client_reads_what_ours_reads(cluster, listened, open_read):
    dataset, feast = listened
    read = open_read(dataset.name, cluster.address)
    service = feast.get_feature_service(repository.SERVICE)
    context = Context(9, 1, "Android 14", [])
    moment = {"hour": 9, "weekday": 1, "device": context.device, "session_plays": 0}
    for _ in range(20):
        user = CHANCE.choice([*(play.user for play in PLAYS[:20]), "nobody"])
        ids = CHANCE.sample([*TRACKS, "no track", "{"], 20)
        rows = [{"user_id": user, "track_id": track, **moment, "in_session": 0} for track in ids]
        answer = feast.get_online_features(service, rows, full_feature_names=True).to_dict()
        matrix = read(user, ids, context, NOW)
        expected = np.array([answer[column] for column in matrix.columns], np.float32).T
        np.testing.assert_array_equal(matrix.values, expected)
        assert user == "nobody" or (matrix.states == State.FRESH).sum() > 40


def test_the_nodes_hold_together_what_one_server_would_and_are_pruned_alike(
    cluster, listened, redis
):
    dataset, feast = listened
    outcomes = upkeep.bring(dataset, STORED, NOW, feast, redis)
    assert upkeep.stale(outcomes) is None
    one = hashes(redis, dataset.name)
    assert {k: sorted(v) for k, v in hashes(cluster.address, dataset.name).items()} == {
        k: sorted(v) for k, v in one.items()
    }
    assert len(one) > 500
    seen = []
    arguments = dataset.name, STORED, NOW + 15 * DAY
    pruned = prune(*arguments, cluster.address, lambda *progress: seen.append(progress))
    assert pruned == prune(*arguments, redis)
    assert pruned > 50
    assert seen[-1][0] == seen[-1][1]
    assert hashes(cluster.address, dataset.name).keys() == hashes(redis, dataset.name).keys()


def test_a_row_that_is_newer_in_the_cluster_stays(cluster, listened):
    dataset, feast = listened
    upkeep.bring(dataset, [POPULARITY], NOW + DAY, feast, cluster.address)
    before = hashes(cluster.address, dataset.name)
    (outcome,) = upkeep.bring(dataset, [POPULARITY], NOW, feast, cluster.address)
    assert outcome.written.newer > 30
    assert hashes(cluster.address, dataset.name) == before
