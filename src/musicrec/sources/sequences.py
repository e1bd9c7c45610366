"""Sequence files as papers ship them: ``user item item …`` a line, oldest item first, untimed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from musicrec.errors import ConfigError
from musicrec.interactions.schema import ListenBatch
from musicrec.sources.reading.listens import listen_batches
from musicrec.sources.reading.one_file import OneTextFile
from musicrec.sources.reading.rows import Rows
from musicrec.sources.reading.tokens import PLAYS, WordLines, word_lines


class SequencesSource(OneTextFile):
    """One listener or session a line; ``configs/data/sequences.yaml`` documents the arguments."""

    name = "sequences"
    timed = False

    def __init__(self, path: str | Path, user: Literal["first", "line"] = "first") -> None:
        if user not in ("first", "line"):
            raise ConfigError(f"data.user={user} is not possible for sequences: first | line")
        super().__init__(path, {"user": user})
        self._user = user

    def batches(self) -> Iterator[ListenBatch]:
        path = self._readable()
        return listen_batches(self._rows(path), PLAYS, str(path))

    def _rows(self, path: Path) -> Iterator[Rows]:
        place = 0
        for lines in word_lines(path):
            rows = _plays(lines, place, with_user=self._user == "first")
            place += len(rows.lines)
            yield rows


def _plays(lines: WordLines, place: int, with_user: bool) -> Rows:
    """Every word as a play, save the first of each line where it is the user."""
    items = lines.counts.copy()
    words = lines.words
    if with_user:
        lines.refuse(lines.counts == 1, "a user without an item")
        is_item = np.ones(len(words), dtype=bool)
        is_item[lines.starts[lines.counts > 0]] = False
        words = words.filter(pa.array(is_item))
        items[items > 0] -= 1
    line = np.repeat(np.arange(len(items)), items)
    if with_user:
        user = lines.words.take(pa.array(lines.starts[line]))
    else:
        user = pa.array(lines.lines[line]).cast(pa.string())
    return lines.plays(user, words, line, place)
