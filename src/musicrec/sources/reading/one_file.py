"""What formats of one text file have in common as a ``Source``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from musicrec.sources.reading.diagnosis import refuse_json, refuse_no_text
from musicrec.sources.reading.files import existing_file
from musicrec.sources.reading.fingerprints import fingerprint


class OneTextFile:
    """All of ``Source`` but ``batches`` and ``timed``.

    Args:
        path: the file, gzipped or not; looked at only when it is read.
        settings: whatever changes what is read from it, for the fingerprint.
    """

    name: str

    def __init__(self, path: str | Path, settings: dict[str, Any] | None = None) -> None:
        self._path = Path(path)
        self._settings = settings or {}

    def _readable(self) -> Path:
        """The file, once it is known to be there and to be text of no other kind."""
        path = existing_file(self._path)
        refuse_no_text(path)
        refuse_json(path)
        return path

    def total_bytes(self) -> int:
        return existing_file(self._path).stat().st_size

    def fingerprint(self) -> str:
        return fingerprint(self.name, [existing_file(self._path)], self._settings)

    def describe(self) -> str:
        return str(self._path)
