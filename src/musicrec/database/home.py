"""Where musicrec keeps what it makes for itself: the embedded server and training snapshots."""

from __future__ import annotations

import os
from pathlib import Path

from musicrec.errors import DatabaseError


def home() -> Path:
    """The project's own folder, absolute, created when first needed.

    ``MUSICREC_HOME`` if set; else the nearest ``.musicrec`` in the working folder or one above
    it, so that a command finds the same listens from any folder of a project; else a new
    ``.musicrec`` in the working folder. Git is told to ignore it from within.

    Raises:
        DatabaseError: the folder cannot be made or written.
    """
    folder = location()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        ignore = folder / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")
    except OSError as error:
        raise DatabaseError(
            f"cannot write {folder}: {error.strerror}; set MUSICREC_HOME to a folder you can write"
        ) from error
    return folder


def location() -> Path:
    """Where ``home`` is, or would be: nothing is made."""
    return _named() or _nearest() or Path.cwd() / ".musicrec"


def _named() -> Path | None:
    name = os.environ.get("MUSICREC_HOME")
    return Path(name).expanduser().absolute() if name else None


def _nearest() -> Path | None:
    here = Path.cwd()
    found = (folder / ".musicrec" for folder in (here, *here.parents))
    return next((folder for folder in found if folder.is_dir()), None)
