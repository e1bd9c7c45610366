"""A command that a clock starts: alone of its kind, and leaving a line for everything it does."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from musicrec.cli import report
from musicrec.database.locks import open_lock
from musicrec.errors import MusicrecError
from musicrec.registry.history import now, who
from musicrec.registry.whole import whole_file


class Busy(MusicrecError):
    """Another process does the same; the message says which, and since when."""


@contextmanager
def alone(folder: Path) -> Iterator[int]:
    """Hold the folder's lock, as long as this process lives or any to which it was handed on.

    Yields:
        The lock's descriptor, for ``pass_fds`` of a child that must not run beside another job.

    Raises:
        Busy: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock, holder = open_lock(folder / "lock"), folder / "holder.json"
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"{_said(holder)} is at work in {folder}; wait for its end") from None
        with whole_file(holder) as file:
            file.write(json.dumps({"pid": os.getpid(), "who": who(), "since": now()}).encode())
        yield lock
    finally:
        os.close(lock)


def _said(holder: Path) -> str:
    try:
        told = json.loads(holder.read_text())
        said = f"process {told['pid']} of {told['who']}, since {told['since']},"
    except (OSError, ValueError, KeyError):  # it has only just begun
        return "another process"
    if Path("/proc/self").exists() and not Path(f"/proc/{told['pid']}").exists():
        return f"what was started by {said} and outlived it,"
    return said


class Log:
    """Readable lines to the terminal, and the same as JSON, one object a line, to a file.

    Args:
        path: only ever appended to.
        always: facts that every line bears.
    """

    def __init__(self, path: Path, console: Console, **always: Any) -> None:
        self.path = path
        self._console = console
        self._always = always

    def tell(self, event: str, said: str, **facts: Any) -> None:
        """Say something in words, with its facts for a program."""
        self.note(event, said=said, **facts)
        report.say(self._console, said)

    def note(self, event: str, **facts: Any) -> None:
        """Leave a line in the file alone."""
        line = {"time": now(), "event": event, **self._always, **facts}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")
