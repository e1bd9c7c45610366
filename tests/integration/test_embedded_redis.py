"""The embedded Redis, as the processes that use it see it; as ``test_embedded_postgres``."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import ROOT, wait_until_stopped

pytestmark = pytest.mark.slow

CONNECT = """
import sys
from redis import Redis
from musicrec.database.embedded_redis import running_server
from musicrec.errors import DatabaseError

def connect():
    try:
        address = running_server()
    except DatabaseError as error:
        sys.exit(str(error))
    return Redis(address.host, address.port, password=address.password, decode_responses=True)

def say(word):
    print(word, flush=True)

redis = connect()
"""
#: Stay until the test closes this process's standard input.
STAY = "say('here'); sys.stdin.read()"
PLAY = "redis.incr('plays');"
COUNT = "say(redis.get('plays'));"
SERVER = "say(redis.info('server')['run_id']);"
PORT = "say(redis.config_get('port')['port']);"
SECOND = 1.2  #: what appendfsync everysec may lose, and a bit


def start(home: Path, code: str, **more: str) -> subprocess.Popen[str]:
    source = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-c", CONNECT + code],
        env={**os.environ, "PYTHONPATH": source, "MUSICREC_HOME": str(home), **more},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said(home: Path, code: str) -> str:
    process = start(home, code)
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out.strip()


@contextlib.contextmanager
def user(home: Path, code: str = STAY) -> Iterator[subprocess.Popen[str]]:
    """A user that stays; in the block it has said its first word."""
    with start(home, code) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "here"
        yield process


def server_pid(home: Path) -> int:
    return int((home / "redis" / "server.lock").read_text())


@pytest.fixture
def home() -> Iterator[Path]:
    """An empty home of an odd name."""
    parent = Path(tempfile.mkdtemp(prefix="musicrec-test-"))
    home = parent / "häuser \"und\" 'so' $HOME"
    home.mkdir()
    yield home
    wait_until_stopped(home)
    shutil.rmtree(parent)


def test_two_processes_at_once_share_one_server(home: Path) -> None:
    users = [start(home, SERVER + STAY) for _ in range(2)]
    servers = [process.stdout.readline() for process in users if process.stdout]
    for process in users:
        process.communicate()
    assert servers[0].strip()
    assert servers[0] == servers[1]


def test_what_was_written_is_there_after_it_stopped(home: Path) -> None:
    said(home, PLAY)
    wait_until_stopped(home)
    assert said(home, PLAY + COUNT) == "2"


def test_kill_9_of_its_last_user_stops_it_and_loses_nothing(home: Path) -> None:
    with user(home, PLAY + STAY) as process:
        process.kill()
    wait_until_stopped(home)
    assert said(home, COUNT) == "1"


def test_it_runs_as_long_as_somebody_uses_it(home: Path) -> None:
    with user(home) as first, user(home, PLAY + STAY):
        first.kill()
        first.wait()
        assert said(home, COUNT) == "1"


def test_kill_9_of_the_server_loses_a_second_at_most(home: Path) -> None:
    with user(home, PLAY + STAY):
        time.sleep(SECOND)
        os.kill(server_pid(home), signal.SIGKILL)
        assert said(home, COUNT) == "1"


def test_its_port_and_password_stay_the_same(home: Path) -> None:
    place = "say([redis.connection_pool.connection_kwargs[k] for k in ('port', 'password')]);"
    before = said(home, place)
    wait_until_stopped(home)
    assert said(home, place) == before


def test_it_takes_another_port_where_somebody_else_has_its_own(home: Path) -> None:
    port = int(said(home, PLAY + PORT))
    wait_until_stopped(home)
    with socket.socket() as somebody:
        somebody.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        somebody.bind(("127.0.0.1", port))
        somebody.listen()
        assert int(said(home, PORT)) != port
        assert said(home, COUNT) == "1"


def test_it_stops_though_its_folder_was_deleted_under_it(home: Path) -> None:
    with user(home):
        pid = server_pid(home)
        shutil.rmtree(home / "redis")
        with user(home, PLAY + STAY):
            assert server_pid(home) != pid
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}/exe").exists():  # of a process that ended only a name is left
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_nobody_reads_or_writes_it_without_the_password(home: Path) -> None:
    with user(home, "say('here');" + PORT + "sys.stdin.read()") as process:
        assert process.stdout is not None
        with socket.create_connection(("127.0.0.1", int(process.stdout.readline()))) as anonymous:
            anonymous.sendall(b"GET plays\r\n")
            assert anonymous.recv(1024).startswith(b"-NOAUTH")
    assert stat.S_IMODE((home / "redis" / "data").stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "redis" / "data" / "redis.conf").stat().st_mode) == 0o600


def test_a_server_that_does_not_start_is_quoted(home: Path) -> None:
    said(home, PLAY)
    wait_until_stopped(home)
    (home / "redis" / "data" / "appendonly.aof").write_text("torn\n" * 9)
    process = start(home, "")
    _, err = process.communicate()
    assert process.returncode != 0
    assert len(err.strip().splitlines()) == 1, err
    assert "Bad file format reading the append only file" in err
    assert "set FEAST_REDIS_HOST to a server" in err
