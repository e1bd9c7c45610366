"""File locks that vanish with their process, however it ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Descriptors of the locks this process shares, by their files.
_shared: dict[Path, int] = {}


def open_lock(path: Path) -> int:
    """A descriptor to lock, closed on exec. Read-only, so that root and a user can share it."""
    return os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold ``path`` alone for a while, waiting for it as long as it takes."""
    lock = open_lock(path)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def is_held(path: Path) -> bool:
    """Whether some process holds ``path``, shared or alone."""
    lock = open_lock(path)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def share(path: Path) -> None:
    """Hold ``path`` together with others until this process ends or calls ``leave``.

    Waits while someone holds it alone. Asking twice changes nothing, unless the file was deleted
    in between: then the new one is held as well.
    """
    held = _shared.get(path)
    if held is not None and path.exists() and os.path.samestat(os.fstat(held), path.stat()):
        return
    lock = open_lock(path)
    fcntl.flock(lock, fcntl.LOCK_SH)
    _shared[path] = lock
    if held is not None:
        os.close(held)


def leave(path: Path) -> None:
    """Give back what ``share`` took, if it did."""
    held = _shared.pop(path, None)
    if held is not None:
        os.close(held)
