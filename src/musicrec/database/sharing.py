# ruff: noqa: S603  the command is Python's own, given as a list to no shell
"""An embedded server that several processes share: started by the first, stopped after the last.

In the server's folder ``<home>/<kind>``::

    users.lock    held shared by every process that uses the server, for its lifetime
    start.lock    held alone while looking whether the server runs, and starting it
    keeper.lock   held by the keeper, which waits for users.lock to be free and stops the server

Locks and not process ids: the kernel frees a lock however its holder ends, so a kill -9 of the
last user still stops the server.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from musicrec.database import keeper
from musicrec.database.home import home
from musicrec.database.locks import exclusive, is_held, leave, share
from musicrec.errors import DatabaseError


@dataclass(frozen=True, slots=True)
class Shared:
    """One kind of embedded server.

    Attributes:
        kind: its folder's name in ``home()``, and what the keeper calls it.
        name: for messages.
        instead: what a person can do to need no such server.
    """

    kind: keeper.Kind
    name: str
    instead: str

    @contextmanager
    def used(self) -> Iterator[Path]:
        """Count this process as a user until it ends or calls ``leave``.

        In the block, where the server is looked for and started, nobody else does the same, and
        there is a keeper: whatever happens to this process, somebody stops the server.

        Yields:
            The server's folder.

        Raises:
            DatabaseError: the folder cannot be used.
        """
        folder = home() / self.kind
        try:
            # Not 0700: where root steps down to nobody, nobody must pass; data/ itself is closed.
            folder.mkdir(mode=0o711, exist_ok=True)
            share(folder / "users.lock")
            with exclusive(folder / "start.lock"):
                if not is_held(folder / "keeper.lock"):
                    self._spawn_keeper(folder)
                yield folder
        except OSError as error:
            raise DatabaseError(
                f"the embedded {self.name} cannot use {error.filename or folder}: "
                f"{error.strerror}; set MUSICREC_HOME to another folder, or {self.instead}"
            ) from error

    def leave(self) -> None:
        """Stop counting as a user of the server before this process ends."""
        leave(home() / self.kind / "users.lock")

    def failure(self, log: Path, said: str) -> DatabaseError:
        """The server did not start; ``said`` are its last words, of ``log``."""
        return DatabaseError(
            f"the embedded {self.name} did not start: {said} (see {log}); mend that, or "
            f"{self.instead}"
        )

    def _spawn_keeper(self, folder: Path) -> None:
        """Leave a process behind that belongs to no terminal and holds nothing of ours open.

        Returns when it holds its lock.
        """
        python = (sys.executable, "-I", "-S", str(Path(keeper.__file__).resolve()))
        quiet = subprocess.DEVNULL
        subprocess.run(
            [*python, self.kind, str(folder)],
            cwd="/",
            stdin=quiet,
            stdout=quiet,
            stderr=quiet,
            check=True,
            start_new_session=True,
        )


def fresh_log(log: Path) -> None:
    """Begin the log of a start; that of the start before is kept as ``<log>.previous``."""
    if log.exists():
        log.replace(log.with_name(f"{log.name}.previous"))
    log.touch(mode=0o600)
