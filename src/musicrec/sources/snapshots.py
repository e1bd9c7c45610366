"""Which snapshots on disk hold a listener, so that they can be deleted."""

from __future__ import annotations

import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from musicrec.errors import DatabaseError, DataError
from musicrec.interactions.snapshot import Snapshot

#: How long to wait for a snapshot that another process is writing.
WRITER_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Kept:
    """A folder of a dataset's.

    Attributes:
        fingerprint: of the data; None where the snapshot is unfinished or damaged.
        holds: whether the listener is in it, or nobody can tell.
    """

    folder: Path
    fingerprint: str | None
    holds: bool


def kept(folder: Path, dataset: str, user_id: str) -> list[Kept]:
    """Every snapshot of a dataset below ``folder``, unfinished ones included."""
    if not folder.is_dir():
        return []
    name = re.compile(rf"\.?{re.escape(dataset)}-[0-9a-f]{{16}}(\.\d+)?")
    return [
        _kept(place, user_id)
        for place in sorted(folder.iterdir())
        if name.fullmatch(place.name) and place.is_dir()
    ]


def with_fingerprint(folder: Path, dataset: str, fingerprint: str) -> Snapshot | None:
    """The snapshot of just these data below ``folder``; None where there is none that is whole."""
    for place in sorted(folder.glob(f"{dataset}-*")):
        try:
            snapshot = Snapshot.open(place)
        except DataError:
            continue
        if snapshot.facts.fingerprint == fingerprint:
            return snapshot
    return None


def erase(folder: Path, dataset: str, user_id: str) -> int:
    """Delete the snapshots that hold a listener; the next training builds one without.

    One that is being written is waited for: nothing new holds the listener once Postgres does not.

    Returns:
        How many were deleted.

    Raises:
        DatabaseError: another process still writes one after ``WRITER_SECONDS``.
    """
    deadline = time.monotonic() + WRITER_SECONDS
    while writers := [p.folder for p in kept(folder, dataset, user_id) if _is_written(p.folder)]:
        if time.monotonic() > deadline:
            raise DatabaseError(
                f"another process has been writing the snapshot {writers[0]} for "
                f"{WRITER_SECONDS} s; run the command again when it has ended, or delete the "
                "folder if it is long dead"
            )
        time.sleep(0.1)
    holding = [place for place in kept(folder, dataset, user_id) if place.holds]
    for place in holding:
        shutil.rmtree(place.folder)
    return len(holding)


def _kept(place: Path, user_id: str) -> Kept:
    if place.name.startswith("."):
        return Kept(place, None, holds=True)
    try:
        fingerprint = Snapshot.open(place).facts.fingerprint
        users = pq.read_table(place / "users.parquet", columns=["user_id"])["user_id"]
    except (DataError, OSError, pa.ArrowException):
        return Kept(place, None, holds=True)
    return Kept(place, fingerprint, holds=bool(pc.any(pc.equal(users, user_id)).as_py()))


def _is_written(place: Path) -> bool:
    """Whether the process that an unfinished folder is named by is still there."""
    if not place.name.startswith("."):
        return False
    try:
        os.kill(int(place.suffix[1:]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
