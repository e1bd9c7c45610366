"""An online read of all six views, four ways in turn: Feast's SDK, redis-py, ours, a raw replay.

    .venv/bin/python benchmarks/online_reads.py --rounds 15
    .venv/bin/python benchmarks/online_reads.py --check 3000        # equality with the SDK alone

Makes a dataset of its own on embedded servers (or on those that ``DATABASE_URL`` and
``FEAST_REDIS_HOST`` name), applies ``feature_repo/`` to a registry of its own, and fills Redis. A
request is one user and 20 tracks; for half of them there is a row of the pair. One in ten
features is null, and one in twenty tracks has no popularity.

    sdk      ``get_online_features(...).to_dict()``
    redis-py ``Redis.pipeline()``, one HMGET per entity, each value parsed by Feast's ``Value``
    ours     ``OnlineStore.read``: from ids to the matrix, features on demand and states included
    asyncio  ``AsyncOnlineStore.read``, one at a time
    replay   the bytes of our requests, made beforehand, and as many bytes read as will come

Each round runs everyone, so that whatever else the machine does meets all of them. Ratios are
taken within a round; what is printed is the median of the rounds. CPU is that of the client's
process.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import random
import socket
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np

from musicrec.database import embedded, embedded_redis
from musicrec.database.engine import drop_dataset, open_dataset
from musicrec.database.redis_address import RedisAddress, redis_address
from musicrec.features import layout, repository
from musicrec.features.connection import Connection
from musicrec.features.context import Context
from musicrec.features.online import AsyncOnlineStore, OnlineStore
from musicrec.features.plan import ReadPlan
from musicrec.features.resp import encoded
from musicrec.features.views import ALWAYS, STORED, View

USERS, TRACKS, CANDIDATES = 10_000, 5_000, 20
#: The rows' stamp: the last midnight.
MIDNIGHT = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
PATIENT = 10.0

Request = tuple[str, list[str], Context]


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="online-reads-") as folder:
        os.environ.setdefault("MUSICREC_HOME", folder)
        name = f"online_reads_{uuid.uuid4().hex[:8]}"
        redis = redis_address()
        try:
            with open_dataset(name, create=True) as dataset:
                store = repository.open_store(dataset, redis)
                repository.apply(store)
                requests = _fill(redis, name, options.requests)
                plan = ReadPlan(name, repository.service_columns(store))
                if options.check:
                    _check(store, plan, redis, requests[: options.check])
                if options.rounds:
                    _race(store, plan, redis, requests, options.rounds)
        finally:
            drop_dataset(name)
            embedded.leave_server()
            embedded_redis.leave_server()


# --- the data


def _fill(redis: RedisAddress, project: str, num_requests: int) -> list[Request]:
    """Write the rows of everybody; returns random requests."""
    chance = random.Random(17)
    users = [f"user_{n:06}" for n in range(USERS)]
    tracks = [f"track_{n:06}" for n in range(TRACKS)]
    of_user = {user: chance.sample(tracks, CANDIDATES // 2) for user in users}
    rows: list[tuple[View, tuple[str, ...]]] = []
    for view in STORED:
        if view.entities == ("user",):
            rows += [(view, (user,)) for user in users]
        elif view.entities == ("track",):
            share = 1.0 if view.window is None else 0.95
            rows += [(view, (track,)) for track in tracks if chance.random() < share]
        else:
            rows += [(view, (user, track)) for user in users for track in of_user[user]]
    with Connection(redis) as connection:
        for start in range(0, len(rows), 2000):
            batch = [_written(chance, project, *row) for row in rows[start : start + 2000]]
            connection.ask(b"".join(batch), len(batch))
    requests = []
    for _ in range(num_requests):
        user = chance.choice(users)
        candidates = list(dict.fromkeys([*of_user[user], *chance.sample(tracks, CANDIDATES)]))
        session = chance.sample(candidates[:CANDIDATES], 3)
        context = Context(chance.randrange(24), chance.randrange(7), "Android 14", session)
        requests.append((user, candidates[:CANDIDATES], context))
    return requests


def _written(chance: random.Random, project: str, view: View, ids: tuple[str, ...]) -> bytes:
    key = layout.key(layout.key_prefix(view.join_keys), ids[::-1], project.encode())
    stamp = layout.timestamp(MIDNIGHT if view.window else ALWAYS)
    words = [layout.timestamp_field(view.name), stamp]
    for field in layout.fields(view):
        number = None if chance.random() < 0.1 else chance.gauss(1, 5)
        words += [field, layout.value(number)]
    return encoded(b"HSET", key, *words)


# --- the contestants: each makes a function of one request


def _sdk(store: Any) -> Callable[[Request], dict[str, list[Any]]]:
    service = store.get_feature_service(repository.SERVICE)

    def read(request: Request) -> dict[str, list[Any]]:
        user, tracks, context = request
        session = context.session or []
        rows = [
            {
                "user_id": user,
                "track_id": track,
                "hour": context.hour,
                "weekday": context.weekday,
                "device": context.device,
                "session_plays": len(session),
                "in_session": int(track in session),
            }
            for track in tracks
        ]
        return store.get_online_features(service, rows, full_feature_names=True).to_dict()

    return read


def _redis_py(redis: RedisAddress, project: str) -> Callable[[Request], list[list[Any]]]:
    from feast.protos.feast.types.Value_pb2 import Value
    from redis import Redis

    client = Redis(redis.host, redis.port, password=redis.password, ssl=redis.ssl)
    kinds = {}
    for entities in (("user",), ("track",), ("user", "track")):
        views = [view for view in STORED if view.entities == entities]
        fields = [field for view in views for field in layout.fields(view)]
        fields += [layout.timestamp_field(view.name) for view in views]
        kinds[entities] = layout.key_prefix(views[0].join_keys), fields, len(views)

    def read(request: Request) -> list[list[Any]]:
        user, tracks, _ = request
        asked = [(("user",), (user,)), *((("track",), (track,)) for track in tracks)]
        asked += [(("user", "track"), (track, user)) for track in tracks]
        with client.pipeline(transaction=False) as pipe:
            for kind, ids in asked:
                prefix, fields, _ = kinds[kind]
                pipe.hmget(layout.key(prefix, ids, project.encode()), fields)
            replies = pipe.execute()
        rows = []
        for (kind, _), reply in zip(asked, replies, strict=True):
            row = []
            for coded in reply[: -kinds[kind][2]]:
                value = Value()
                if coded:
                    value.ParseFromString(coded)
                row.append(value.float_val if value.WhichOneof("val") else None)
            rows.append(row)
        return rows

    return read


def _replay(plan: ReadPlan, redis: RedisAddress, requests: list[Request]) -> Callable[[int], None]:
    """Of the request of a number."""
    client = socket.create_connection((redis.host, redis.port))
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if redis.password:
        client.sendall(encoded(b"AUTH", redis.password.encode()))
        client.recv(100)
    coded = [plan.encode(user, tracks) for user, tracks, _ in requests]
    sizes = []
    for request in coded:  # an ECHO says where the replies end
        client.sendall(request + encoded(b"ECHO", b"that was all"))
        said = b""
        while not said.endswith(b"$12\r\nthat was all\r\n"):
            said += client.recv(1 << 16)
        sizes.append(len(said) - len(b"$12\r\nthat was all\r\n"))

    def replay(number: int) -> None:
        client.sendall(coded[number])
        left = sizes[number]
        while left:
            left -= len(client.recv(1 << 16))

    return replay


# --- the race


def _race(
    store: Any, plan: ReadPlan, redis: RedisAddress, requests: list[Request], rounds: int
) -> None:
    loop = asyncio.new_event_loop()
    ours = OnlineStore(plan, redis, PATIENT)
    concurrent = AsyncOnlineStore(plan, redis, PATIENT)
    sdk, redis_py = _sdk(store), _redis_py(redis, store.project)
    replay = _replay(plan, redis, requests)

    async def over(numbers: list[int], walls: list[float]) -> None:
        for number in numbers:
            begin = time.perf_counter()
            await concurrent.read(*requests[number])
            walls.append(time.perf_counter() - begin)

    def each(read: Callable[[int], object]) -> Callable[[list[int], list[float]], None]:
        def run(numbers: list[int], walls: list[float]) -> None:
            for number in numbers:
                begin = time.perf_counter()
                read(number)
                walls.append(time.perf_counter() - begin)

        return run

    contestants: dict[str, tuple[int, Callable[[list[int], list[float]], Any]]] = {
        "sdk": (25, each(lambda n: sdk(requests[n]))),
        "redis-py": (150, each(lambda n: redis_py(requests[n]))),
        "ours": (500, each(lambda n: ours.read(*requests[n]))),
        "asyncio": (500, lambda numbers, walls: loop.run_until_complete(over(numbers, walls))),
        "replay": (500, each(replay)),
    }
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    chance = random.Random(4)
    gc.collect()
    gc.freeze()  # Feast's modules would make everybody's collections slow
    for turn in range(rounds + 1):
        for name, (count, run) in contestants.items():
            numbers = [chance.randrange(len(requests)) for _ in range(count)]
            walls: list[float] = []
            gc.collect()
            begin = time.process_time()
            run(numbers, walls)
            cpu = (time.process_time() - begin) / count
            if turn:  # the first is for warming up
                figures[name].append((cpu, statistics.median(walls)))
    loop.run_until_complete(concurrent.close())
    loop.close()
    _print_table(figures)


def _print_table(figures: dict[str, list[tuple[float, float]]]) -> None:
    def ratio(one: str, other: str, place: int) -> str:
        ratios = [a[place] / b[place] for a, b in zip(figures[one], figures[other], strict=True)]
        return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"

    print("| Path | CPU, µs | p50, µs | CPU: times less than the SDK | p50: times the replay |")
    print("|---|---|---|---|---|")
    for name, found in figures.items():
        cpu, wall = (statistics.median(each) * 1e6 for each in zip(*found, strict=True))
        less, times = ratio("sdk", name, 0), ratio(name, "replay", 1)
        print(f"| {name} | {cpu:.0f} | {wall:.0f} | {less} | {times} |")


# --- the check


def _check(store: Any, plan: ReadPlan, redis: RedisAddress, requests: list[Request]) -> None:
    """Every value of ours is that of Feast's SDK, unknown users and tracks included."""
    sdk, ours = _sdk(store), OnlineStore(plan, redis, PATIENT)
    chance = random.Random(5)
    started = time.perf_counter()
    for user, tracks, context in requests:
        if chance.random() < 0.1:
            user = "nobody"
        tracks = [track if chance.random() > 0.05 else f"no {track}" for track in tracks]
        matrix = ours.read(user, tracks, context, datetime.now(UTC))
        assert matrix.reason is None
        theirs = sdk((user, tracks, context))
        expected = np.array([theirs[column] for column in matrix.columns], np.float32).T
        np.testing.assert_array_equal(matrix.values, expected)
        assert set(theirs) == {*matrix.columns, "user_id", "track_id"}
    seconds = time.perf_counter() - started
    print(f"{len(requests):,} random requests: every value equal to the SDK's ({seconds:.0f} s)")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=0, help="of the race")
    parser.add_argument("--check", type=int, default=0, help="requests to compare with the SDK")
    parser.add_argument("--requests", type=int, default=5000, help="different ones")
    return parser.parse_args()


if __name__ == "__main__":
    main()
