"""Online reads from a real Redis, over a network that fails: one suite, blocking and asyncio."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvloop

from musicrec.database import embedded_redis
from musicrec.database.redis_address import RedisAddress
from musicrec.errors import FeatureError
from musicrec.features import layout
from musicrec.features.connection import Connection
from musicrec.features.context import Context
from musicrec.features.online import AsyncOnlineStore, OnlineStore
from musicrec.features.plan import FeatureMatrix, ReadPlan, State
from musicrec.features.resp import encoded
from musicrec.features.views import BY_NAME, View
from redis_proxy import Impostor, Proxy

pytestmark = pytest.mark.slow

NOW = datetime(2024, 3, 12, 9, tzinfo=UTC)
STATS, POPULARITY = BY_NAME["user_listening_stats"], BY_NAME["track_popularity"]
PAIRS = BY_NAME["user_track_interactions"]

#: For requests that must be answered, however busy the machine is.
PATIENT = 20.0


class Blocking:
    """``AsyncOnlineStore`` behind ``OnlineStore``'s interface, on a loop of its own thread."""

    new_loop = staticmethod(asyncio.new_event_loop)

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.loop = self.new_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.store = AsyncOnlineStore(*arguments, **options)

    def read(self, *arguments: Any, **options: Any) -> FeatureMatrix:
        coroutine = self.store.read(*arguments, **options)
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self.store.close(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)


class BlockingUvloop(Blocking):
    """On the loop that serves HTTP."""

    new_loop = staticmethod(uvloop.new_event_loop)


Open = Callable[..., Any]


@pytest.fixture(
    params=[OnlineStore, Blocking, BlockingUvloop], ids=["blocking", "asyncio", "uvloop"]
)
def open_store(request, project) -> Iterator[Open]:
    """Opens a store on a port or an address."""
    opened = []

    def open_(where: int | RedisAddress, timeout_seconds: float = PATIENT, **options: Any) -> Any:
        address = RedisAddress("127.0.0.1", where) if isinstance(where, int) else where
        if request.param is not OnlineStore:
            options.setdefault("num_connections", 1)
        store = request.param(ReadPlan(project), address, timeout_seconds, **options)
        opened.append(store)
        return store

    yield open_
    for store in opened:
        store.close()


@pytest.fixture
def project() -> str:
    """One that nobody else has."""
    return f"test_{uuid.uuid4().hex}"


class Server:
    """A Redis that may be killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.address = RedisAddress("127.0.0.1", self.port)
        self.start()

    def start(self) -> None:
        program = embedded_redis._program()
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        self.process = subprocess.Popen(
            [program, *options, "--appendonly", "yes", "--appendfsync", "always"],
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 30
        while True:
            try:
                return self.ask(encoded(b"PING"))
            except Exception:
                assert time.monotonic() < deadline
                time.sleep(0.01)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def ask(self, command: bytes) -> None:
        with Connection(self.address) as connection:
            connection.ask(command, 1)

    def put(self, project: str, view: View, ids: tuple[str, ...], first: float) -> None:
        """A row of ``NOW`` whose first feature is ``first``."""
        self.ask(put(project, view, ids, first))


def put(project: str, view: View, ids: tuple[str, ...], first: float) -> bytes:
    key = layout.key(layout.key_prefix(view.join_keys), ids[::-1], project.encode())
    words = [layout.timestamp_field(view.name), layout.timestamp(NOW)]
    for field in layout.fields(view):
        words += [field, layout.value(first)]
    return encoded(b"HSET", key, *words)


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture
def proxy(server) -> Iterator[Proxy]:
    with Proxy(server.port) as proxy:
        yield proxy


def first_values(matrix: FeatureMatrix, view: View = STATS) -> list[float]:
    """A view's first feature, of each candidate."""
    return matrix.values[:, matrix.columns.index(view.columns[0])].tolist()


def assert_unavailable(matrix: FeatureMatrix, reason: str = "") -> None:
    assert (matrix.states == State.UNAVAILABLE).all()
    assert np.isnan(matrix.values).all()
    assert np.isnan(matrix.ages).all()
    assert reason in matrix.reason
    assert "\n" not in matrix.reason


def test_what_is_in_redis_is_read(open_store, server, project):
    server.put(project, STATS, ("ann",), 7)
    server.put(project, POPULARITY, ("b",), 8)
    server.put(project, PAIRS, ("ann", "a"), 9)
    matrix = open_store(server.port).read("ann", ["a", "b"], Context(), NOW)
    assert first_values(matrix, STATS) == [7, 7]
    np.testing.assert_array_equal(first_values(matrix, POPULARITY), [np.nan, 8])
    np.testing.assert_array_equal(first_values(matrix, PAIRS), [9, np.nan])
    assert matrix.states.tolist() == [
        [State.FRESH, State.MISSING, State.MISSING, State.MISSING, State.FRESH],
        [State.FRESH, State.MISSING, State.MISSING, State.FRESH, State.MISSING],
    ]
    assert matrix.reason is None


def test_a_password_is_used(open_store, redis, project):
    with Connection(redis) as connection:
        connection.ask(put(project, STATS, ("ann",), 7), 1)
    assert first_values(open_store(redis).read("ann", ["a"], as_of=NOW)) == [7]


def test_thousands_of_candidates_are_one_request(open_store, server, project):
    server.put(project, STATS, ("ann",), 7)
    server.put(project, POPULARITY, ("t2999",), 8)
    matrix = open_store(server.port).read("ann", [f"t{n}" for n in range(3000)], as_of=NOW)
    assert first_values(matrix) == [7] * 3000
    assert first_values(matrix, POPULARITY)[-1] == 8


def test_no_candidates_are_an_empty_matrix(open_store, server):
    matrix = open_store(server.port).read("ann", [], as_of=NOW)
    assert matrix.values.shape == (0, len(matrix.columns))


def test_a_wrong_request_is_an_error_and_no_answer(open_store, server):
    with pytest.raises(FeatureError, match="track_ids"):
        open_store(server.port).read("ann", "abc")


def test_a_redis_that_is_down_is_unavailable(open_store):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))  # and does not listen
        port = probe.getsockname()[1]
        assert_unavailable(open_store(port).read("ann", ["a", "b"]), f"127.0.0.1:{port}")


def test_a_host_that_does_not_exist_is_unavailable(open_store):
    assert_unavailable(open_store(RedisAddress("nowhere.invalid", 1)).read("ann", ["a"]), "nowhere")


def test_features_of_the_moment_need_no_redis(open_store):
    matrix = open_store(RedisAddress("nowhere.invalid", 1)).read("ann", ["a"], Context(hour=6))
    assert matrix.values[0, matrix.columns.index("context_aware_features__hour_sin")] == 1


def test_a_redis_that_never_answers_is_given_up_in_time(open_store, proxy):
    store = open_store(proxy.port, timeout_seconds=0.2)
    proxy.hold()
    begin = time.monotonic()
    assert_unavailable(store.read("ann", ["a"]), "in time")
    assert 0.2 <= time.monotonic() - begin < 5


def test_a_redis_that_trickles_is_given_up_in_time(open_store):
    def trickle(client: socket.socket) -> None:
        client.recv(1 << 16)
        client.sendall(b"+PONG\r\n")
        client.recv(1 << 16)
        while True:  # each byte well within the time for all
            client.sendall(b"*")
            time.sleep(0.02)

    with Impostor(trickle) as server:
        store = open_store(server.port, timeout_seconds=0.2)
        begin = time.monotonic()
        assert_unavailable(store.read("ann", ["a"]))
        assert time.monotonic() - begin < 5


def test_a_redis_that_does_not_take_the_request_is_given_up_in_time(open_store):
    def ignore(client: socket.socket) -> None:
        client.recv(1 << 16)
        client.sendall(b"+PONG\r\n")
        time.sleep(5)

    with Impostor(ignore) as server:
        store = open_store(server.port, timeout_seconds=0.3)
        begin = time.monotonic()
        many = [f"track {n}" for n in range(50_000)]  # more than the kernel keeps
        assert_unavailable(store.read("ann", many), "in time")
        assert time.monotonic() - begin < 4.5


def test_a_late_reply_is_not_taken_for_the_next_requests(open_store, server, proxy, project):
    server.put(project, STATS, ("ann",), 1)
    server.put(project, STATS, ("bob",), 2)
    store = open_store(proxy.port, timeout_seconds=0.3)
    assert first_values(store.read("ann", ["a"], as_of=NOW)) == [1]
    proxy.hold()
    assert_unavailable(store.read("ann", ["a"], as_of=NOW))
    proxy.release()
    getattr(store, "store", store)._timeout = PATIENT
    for _ in range(20):
        assert first_values(store.read("bob", ["a"], as_of=NOW)) == [2]
    assert proxy.num_connections == 2


def test_a_connection_lost_while_idle_is_made_again(open_store, server, proxy, project):
    server.put(project, STATS, ("ann",), 1)
    store = open_store(proxy.port)
    store.read("ann", ["a"])
    proxy.cut()
    assert first_values(store.read("ann", ["a"], as_of=NOW)) == [1]


def test_a_connection_lost_in_the_middle_is_made_again(open_store, server, proxy, project):
    server.put(project, STATS, ("ann",), 1)
    store = open_store(proxy.port)
    store.read("ann", ["a"])
    proxy.hold()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(store.read, "ann", ["a"], as_of=NOW)
        time.sleep(0.2)
        proxy.cut()
        proxy.release()
        assert first_values(answer.result()) == [1]


def test_a_server_that_hangs_up_each_time_is_unavailable(open_store):
    with Impostor(lambda client: client.close()) as server:
        store = open_store(server.port)
        for _ in range(3):
            assert_unavailable(store.read("ann", ["a"]), "connection")


def test_a_restarted_redis_is_read_again_without_a_failed_request(open_store, tmp_path, project):
    server = Server(tmp_path)
    try:
        server.put(project, STATS, ("ann",), 1)
        store = open_store(server.port)
        assert first_values(store.read("ann", ["a"], as_of=NOW)) == [1]
        server.kill()
        assert_unavailable(store.read("ann", ["a"], as_of=NOW), str(server.port))
        server.start()
        assert first_values(store.read("ann", ["a"], as_of=NOW)) == [1]
        server.kill()
        server.start()
        assert first_values(store.read("ann", ["a"], as_of=NOW)) == [1]
    finally:
        server.kill()


def test_an_emptied_redis_is_missing_rows(open_store, tmp_path, project):
    server = Server(tmp_path)
    try:
        server.put(project, STATS, ("ann",), 1)
        store = open_store(server.port)
        store.read("ann", ["a"])
        server.ask(encoded(b"FLUSHALL"))
        matrix = store.read("ann", ["a"], as_of=NOW)
        assert (matrix.states == State.MISSING).all()
        assert np.isnan(matrix.values).all()
        assert matrix.reason is None
    finally:
        server.kill()


def test_a_redis_that_is_loading_is_unavailable(open_store):
    def load(client: socket.socket) -> None:
        while client.recv(1 << 16):
            client.sendall(b"-LOADING Redis is loading the dataset in memory\r\n")

    with Impostor(load) as server:
        assert_unavailable(open_store(server.port).read("ann", ["a"]), "LOADING")


def test_a_refused_command_is_unavailable_and_the_next_is_not(open_store, server, project):
    server.put(project, STATS, ("ann",), 1)
    key = layout.key(layout.key_prefix(("track_id",)), ("odd",), project.encode())
    server.ask(encoded(b"SET", key, b"text"))
    store = open_store(server.port)
    assert_unavailable(store.read("ann", ["a", "odd"]), "WRONGTYPE")
    assert first_values(store.read("ann", ["a"], as_of=NOW)) == [1]


def test_a_wrong_password_is_unavailable_and_not_shown(open_store, redis):
    matrix = open_store(replace(redis, password="swordfish")).read("ann", ["a"])
    assert_unavailable(matrix, "WRONGPASS")
    assert "swordfish" not in matrix.reason


def test_a_missing_password_is_unavailable(open_store, redis):
    store = open_store(replace(redis, password=None))
    assert_unavailable(store.read("ann", ["a"]), "NOAUTH")


def test_a_server_of_another_protocol_is_unavailable(open_store):
    def answer(client: socket.socket) -> None:
        client.recv(1 << 16)
        client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        client.recv(1 << 16)

    with Impostor(answer) as server:
        assert_unavailable(open_store(server.port).read("ann", ["a"]))


def test_more_replies_than_asked_for_end_the_connection(open_store, server, project):
    def chatter(client: socket.socket) -> None:
        while asked := client.recv(1 << 16):
            client.sendall(b"+PONG\r\n" if b"PING" in asked else b"*-1\r\n" * 4)

    with Impostor(chatter) as impostor:
        assert_unavailable(open_store(impostor.port).read("ann", ["a"]))


def test_many_threads_get_their_own_answers(open_store, server, project):
    for user in range(20):
        server.put(project, STATS, (f"u{user}",), user)
    store = open_store(server.port)
    with ThreadPoolExecutor(8) as pool:
        users = [n % 20 for n in range(400)]
        answers = pool.map(lambda n: store.read(f"u{n}", ["a", "b"], as_of=NOW), users)
        assert [first_values(answer) for answer in answers] == [[n, n] for n in users]


@pytest.fixture(scope="session")
def certificate(tmp_path_factory) -> Path:
    """Of 127.0.0.1, signed by itself, with its key."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", path, "-out", path.with_suffix(".crt")),
        ],
        check=True,
        capture_output=True,
    )
    path.write_bytes(path.read_bytes() + path.with_suffix(".crt").read_bytes())
    return path


@pytest.fixture
def tls_proxy(server, certificate) -> Iterator[Proxy]:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    with Proxy(server.port, tls) as proxy:
        yield proxy


def test_tls_is_spoken(open_store, server, tls_proxy, certificate, project, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    server.put(project, STATS, ("ann",), 1)
    store = open_store(RedisAddress("127.0.0.1", tls_proxy.port, ssl=True))
    for _ in range(2):
        assert first_values(store.read("ann", ["a"], as_of=NOW)) == [1]


def test_a_certificate_that_nobody_vouches_for_is_unavailable(open_store, tls_proxy):
    store = open_store(RedisAddress("127.0.0.1", tls_proxy.port, ssl=True))
    assert_unavailable(store.read("ann", ["a"]), "certificate")


def test_a_fork_does_not_read_its_parents_replies(server, project):
    for user in (1, 2):
        server.put(project, STATS, (f"u{user}",), user)
    store = OnlineStore(ReadPlan(project), server.address, PATIENT)
    store.read("u1", ["a"])
    child = os.fork()
    is_parent = child != 0
    mine = "u1" if is_parent else "u2"
    found = {n for _ in range(200) for n in first_values(store.read(mine, ["a"], as_of=NOW))}
    if not is_parent:
        os._exit(found != {2})
    assert found == {1}
    assert os.waitpid(child, 0)[1] == 0


@pytest.fixture
def users(server, project) -> range:
    """As many as there are, each with plays of their own number."""
    for user in range(50):
        server.put(project, STATS, (f"u{user}",), user)
    return range(50)


def test_requests_share_few_connections(proxy, users, project):
    async def read_all() -> list[FeatureMatrix]:
        address = RedisAddress("127.0.0.1", proxy.port)
        async with AsyncOnlineStore(ReadPlan(project), address, PATIENT) as store:
            return await asyncio.gather(
                *(store.read(f"u{n % 50}", ["a"] * (n % 7), as_of=NOW) for n in range(500))
            )

    found = [first_values(matrix) for matrix in asyncio.run(read_all())]
    assert found == [[n % 50] * (n % 7) for n in range(500)]
    assert proxy.num_connections <= 2


def test_more_than_may_wait_are_answered_at_once(proxy, users, project):
    async def read_all() -> list[FeatureMatrix]:
        address = RedisAddress("127.0.0.1", proxy.port)
        async with AsyncOnlineStore(ReadPlan(project), address, 1, max_pending=3) as store:
            proxy.hold()
            waiting = [asyncio.create_task(store.read("u1", ["a"])) for _ in range(3)]
            await asyncio.sleep(0)
            begin = time.monotonic()
            refused = await store.read("u1", ["a"])
            assert time.monotonic() - begin < 0.5
            await asyncio.gather(*waiting)
            proxy.release()
            return [refused, await store.read("u1", ["a"], as_of=NOW)]

    refused, later = asyncio.run(read_all())
    assert_unavailable(refused, "wait")
    assert first_values(later) == [1]


def test_a_cancelled_request_leaves_the_others_their_answers(proxy, users, project):
    async def read_all() -> list[FeatureMatrix]:
        address = RedisAddress("127.0.0.1", proxy.port)
        plan = ReadPlan(project)
        async with AsyncOnlineStore(plan, address, PATIENT, num_connections=1) as store:
            await store.read("u0", ["a"])
            proxy.hold()
            tasks = [asyncio.create_task(store.read(f"u{n}", ["a"], as_of=NOW)) for n in users]
            await asyncio.sleep(0.1)
            for task in tasks[::2]:
                task.cancel()
            proxy.release()
            return await asyncio.gather(*tasks[1::2])

    assert [first_values(m) for m in asyncio.run(read_all())] == [[n] for n in users[1::2]]
    assert proxy.num_connections == 1


def test_a_slow_reply_costs_those_behind_it_nothing_but_a_new_connection(proxy, users, project):
    async def read_both() -> tuple[FeatureMatrix, FeatureMatrix]:
        address = RedisAddress("127.0.0.1", proxy.port)
        plan = ReadPlan(project)
        async with AsyncOnlineStore(plan, address, 1, num_connections=1) as store:
            await store.read("u0", ["a"])
            proxy.hold()
            first = asyncio.create_task(store.read("u1", ["a"], as_of=NOW))
            await asyncio.sleep(0.8)
            store._timeout = PATIENT
            second = asyncio.create_task(store.read("u2", ["a"], as_of=NOW))
            slow = await first
            proxy.release()
            return slow, await second

    slow, other = asyncio.run(read_both())
    assert_unavailable(slow, "in time")
    assert first_values(other) == [2]
    assert proxy.num_connections == 2
