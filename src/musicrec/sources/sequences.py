"""Sequence files as papers ship them: ``user item item …`` a line, oldest item first, untimed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from musicrec.errors import ConfigError
from musicrec.interactions.schema import ListenBatch
from musicrec.sources.diagnosis import refuse_unreadable
from musicrec.sources.files import existing_file
from musicrec.sources.fingerprints import fingerprint
from musicrec.sources.listens import listen_batches
from musicrec.sources.tokens import TOKENS, TokenLines, play_rows, token_lines


class SequencesSource:
    """One listener (or session) a line; ``configs/data/sequences.yaml`` documents the arguments."""

    name = "sequences"
    timed = False

    def __init__(self, path: str | Path, user: Literal["first", "line"] = "first") -> None:
        if user not in ("first", "line"):
            raise ConfigError(f"data.user={user} is not possible for sequences; choose first | line")
        self._path = Path(path)
        self._user = user

    def batches(self) -> Iterator[ListenBatch]:
        path = existing_file(self._path)
        refuse_unreadable(path)
        ...

    def total_bytes(self) -> int:
        return existing_file(self._path).stat().st_size

    def fingerprint(self) -> str:
        return fingerprint(self.name, [existing_file(self._path)], {"user": self._user})

    def describe(self) -> str:
        return str(self._path)
