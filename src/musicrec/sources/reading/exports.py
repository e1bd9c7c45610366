"""A person's data as a service hands it out: one file, a folder of files, or the zip of it."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from musicrec.errors import DataError
from musicrec.sources.reading.files import Stored, ZipMember, existing_file, magic

_ZIP = b"PK\x03\x04"


def export_files(path: Path, *choices: Sequence[str]) -> list[Stored]:
    """The files of plays of an export, in natural order of their names (2 before 10).

    Args:
        choices: what the files of plays are called inside a folder or zip, the best kind first;
            only files of one kind are taken. A file named itself is taken whatever its name.

    Raises:
        DataError: nothing there, or nothing called so.
    """
    if not path.expanduser().is_dir() and not _is_zip(existing_file(path)):
        return [existing_file(path)]
    inside = everything_inside(path)
    for patterns in choices:
        files = [file for file in inside if _matches(file, patterns)]
        if files:
            return sorted(files, key=lambda file: _natural(str(file)))
    names = ", ".join(sorted(file.name for file in inside)[:4]) or "nothing"
    looked_for = ", ".join(pattern for patterns in choices for pattern in patterns)
    raise DataError(f"{path} holds none of {looked_for}; it holds {names}")


def everything_inside(path: Path) -> list[Stored]:
    """Every file in a folder, however deep, or in a zip; none for a plain file."""
    path = path.expanduser()
    if path.is_dir():
        return [file for file in path.rglob("*") if file.is_file()]
    if not _is_zip(existing_file(path)):
        return []
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if not info.is_dir()]
    except zipfile.BadZipFile as error:
        raise DataError(f"{path} is a torn zip: {error}; fetch it again") from error
    return [ZipMember(path, info.filename, info.file_size) for info in members]


def _is_zip(path: Path) -> bool:
    return magic(path).startswith(_ZIP)


def _matches(file: Stored, patterns: Sequence[str]) -> bool:
    name = PurePosixPath(file.name).name
    return any(fnmatch(name, p) or fnmatch(name, f"{p}.gz") for p in patterns)


def _natural(name: str) -> list[tuple[int, str]]:
    parts = re.findall(r"\d+|\D+", name)
    return [(int(part), "") if part.isdigit() else (0, part) for part in parts]
