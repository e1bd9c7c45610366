"""The embedded server's data folder: made, checked, and told how to run."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from musicrec.database import programs
from musicrec.database.account import Account
from musicrec.errors import DatabaseError

PORT = 5432
USER = "musicrec"
DATABASE = "postgres"

#: Settings that differ from PostgreSQL's own. Durability (fsync) is left on.
SETTINGS = {
    "listen_addresses": "",
    "port": PORT,
    "unix_socket_permissions": "0700",
    "max_connections": 100,
    "shared_buffers": "256MB",
    "work_mem": "64MB",
    "maintenance_work_mem": "256MB",
    # Parallel hash joins share memory through /dev/shm, of which a container may have 64 MB.
    "enable_parallel_hash": "off",
    # Compiling a query pays for analytics of minutes, not for ours of milliseconds.
    "jit": "off",
    # An import writes much and once: fewer checkpoints, and no WAL for what nobody replicates.
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "wal_level": "minimal",
    "max_wal_senders": 0,
    "max_logical_replication_workers": 0,
    "timezone": "UTC",
    "log_timezone": "UTC",
}


def prepare(folder: Path, account: Account) -> Path:
    """Leave ``folder/data`` ready for a start by ``account``, making it if need be.

    Returns:
        The folder its socket will be in.

    Raises:
        DatabaseError: the data is of another major version, or cannot be made.
    """
    data = folder / "data"
    if data.exists():
        _check_version(data)
    else:
        _initialise(folder, account)
    account.give(data)
    socket_folder = _socket_folder(data, account)
    _write_settings(data, socket_folder, account)
    return socket_folder


def _initialise(folder: Path, account: Account) -> None:
    """Make the cluster beside its place and rename it, so that half of one is never found."""
    new = folder / "data.new"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    account.give(new)
    locale = ("--encoding=UTF8", "--locale=C", "--locale-provider=builtin")
    who = ("--auth=trust", f"--username={USER}")
    options = (*who, *locale, "--builtin-locale=C.UTF-8", "--no-sync", "--no-instructions")
    made = programs.run("initdb", *options, new.name, prefix=account.prefix, folder=folder)
    if made.returncode != 0:
        shutil.rmtree(new, ignore_errors=True)
        raise DatabaseError(
            f"the embedded PostgreSQL cannot be set up in {folder}: {last_words(made.stderr)}; "
            "mend that, or set DATABASE_URL to a server"
        )
    with (new / "postgresql.conf").open("a") as conf:
        conf.write("include_if_exists = 'musicrec.conf'\n")
    new.rename(folder / "data")


def _check_version(data: Path) -> None:
    installed = programs.major_version()
    found = (data / "PG_VERSION").read_text().strip()
    if found != installed:
        raise DatabaseError(
            f"{data} was made by PostgreSQL {found}, and {installed} is installed here; move it "
            "away and import again, or set DATABASE_URL to a server"
        )


def _socket_folder(data: Path, account: Account) -> Path:
    """A folder with a short name, whatever the length of ``data``: a socket's path has 103 bytes.

    Named by the cluster's own identifier too, so that a new cluster in the place of a deleted one
    never meets the old one's server.
    """
    with (data / "global" / "pg_control").open("rb") as control:
        identifier = control.read(8)
    digest = hashlib.sha256(os.fsencode(data.resolve()) + identifier).hexdigest()[:12]
    folder = Path(tempfile.gettempdir(), f"musicrec-{digest}")
    if len(os.fsencode(folder)) > 80:
        folder = Path("/tmp", folder.name)  # noqa: S108  made 0700 below, and its owner checked
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if found.st_uid not in (os.geteuid(), account.owner) or found.st_mode & 0o077:
        raise DatabaseError(
            f"{folder} is where the embedded server's socket goes, but it is not yours alone; "
            "delete it, or set TMPDIR to another folder"
        )
    account.give(folder)
    return folder


def _write_settings(data: Path, socket_folder: Path, account: Account) -> None:
    settings = {**SETTINGS, "unix_socket_directories": f'"{socket_folder}"'}
    lines = (f"{name} = {_quoted(str(value))}\n" for name, value in settings.items())
    path = data / "musicrec.conf"
    path.write_text("".join(lines))
    account.give(path)


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def last_words(text: str) -> str:
    """The line of a server program's output that says why it gave up."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    marks = ("PANIC:  ", "FATAL:  ", "error: ", "ERROR:  ")
    telling = [line.partition(mark)[2] for mark in marks for line in lines if mark in line]
    return next(iter(telling), lines[-1] if lines else "it said nothing")
