"""Stops an embedded server when nobody uses it any more, whatever became of its users.

Run as a script with the standard library alone: ``keeper.py KIND FOLDER``. It takes
``FOLDER/keeper.lock``, so that there is one of its kind, and goes into the background. There it
waits until it holds ``FOLDER/users.lock`` alone, which is when the last process that shares it
has ended, by return, by exception or by kill -9; then it stops the server.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

Kind = Literal["postgres", "redis"]

#: Seconds a server may take to write out what it holds in memory.
STOP_SECONDS = 300


@dataclass(frozen=True)
class Note:
    """What PostgreSQL writes down in its data folder as it starts, and deletes as it stops.

    After a crash it stays, and its process id may since have gone to somebody else: only an
    answer at ``address`` shows that the server lives.
    """

    pid: int
    address: Path

    def answers(self) -> bool:
        """Whether a server listens at the address."""
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(str(self.address))
            except OSError:
                return False
        return True


def read_note(data: Path) -> Note | None:
    """The note in the data folder ``data``; None where there is none, or it is half written."""
    try:
        lines = (data / "postmaster.pid").read_text().split("\n")[:-1]
        pid, port, socket_folder = int(lines[0]), lines[3], lines[4]
    except (OSError, IndexError, ValueError):
        return None
    return Note(pid, Path(socket_folder, f".s.PGSQL.{port}")) if socket_folder else None


def keep(kind: Kind, folder: Path) -> None:
    """Take the lock, go into the background, wait for the last user to leave, stop the server."""
    # In this order: as this process ends the kernel frees the lower descriptor first, so a
    # newcomer who was waiting for users.lock finds that there is no keeper, and starts one.
    keeper = _open(folder / "keeper.lock")
    # Opened now, so that the server is found in the end even if the folder was deleted under it.
    server = _open(folder / "server.lock") if kind == "redis" else None
    users = _open(folder / "users.lock")
    try:
        fcntl.flock(keeper, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    if os.fork():
        os._exit(0)
    fcntl.flock(users, fcntl.LOCK_EX)
    if server is not None:
        stop_redis(server)
    elif _is_still(users, folder / "users.lock"):
        stop_postgres(folder / "data")


def _open(lock: Path) -> int:
    return os.open(lock, os.O_RDONLY | os.O_CREAT, 0o644)


def _is_still(users: int, path: Path) -> bool:
    """Whether the open file still has its name.

    Another in its place means that the folder was deleted and made anew: the PostgreSQL there has
    a keeper of its own, and the old one ends by itself when it misses its files.
    """
    try:
        return os.path.samestat(os.fstat(users), path.stat())
    except FileNotFoundError:
        return False


def stop_postgres(data: Path) -> None:
    """Stop the server of ``data``, if it runs, and remove its socket folder."""
    note = read_note(data)
    if note is None:
        return
    if note.answers():
        os.kill(note.pid, signal.SIGINT)  # PostgreSQL's "fast shutdown"
        deadline = time.monotonic() + STOP_SECONDS
        while read_note(data) == note and time.monotonic() < deadline:
            time.sleep(0.01)
    if not note.answers():
        remove_socket(note.address)


def stop_redis(lock: int) -> None:
    """Stop the server that holds the lock and wrote its process id there, if there is one."""
    asked = False
    deadline = time.monotonic() + STOP_SECONDS
    while _is_locked(lock) and time.monotonic() < deadline:
        pid = os.pread(lock, 20, 0)
        if pid.endswith(b"\n") and not asked:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGTERM)  # writes out what it holds, and ends
            asked = True
        time.sleep(0.01)


def _is_locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def remove_socket(address: Path) -> None:
    """Remove what a server leaves behind, and its folder if that holds nothing else."""
    address.unlink(missing_ok=True)
    address.with_name(f"{address.name}.lock").unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # a folder of others' that they set the server to use
        address.parent.rmdir()


if __name__ == "__main__":
    (kind,) = (known for known in get_args(Kind) if known == sys.argv[1])
    keep(kind, Path(sys.argv[2]))
