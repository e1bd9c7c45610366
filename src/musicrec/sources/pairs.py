"""Pair lists as papers ship them: ``user item`` a line, each user's pairs oldest first, untimed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from musicrec.interactions.schema import ListenBatch
from musicrec.sources.reading.listens import listen_batches
from musicrec.sources.reading.one_file import OneTextFile
from musicrec.sources.reading.rows import Rows
from musicrec.sources.reading.tokens import PLAYS, word_lines


class PairsSource(OneTextFile):
    """One play a line, without a time; lines of different users may be mixed."""

    name = "pairs"
    timed = False

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)

    def batches(self) -> Iterator[ListenBatch]:
        path = self._readable()
        return listen_batches(self._rows(path), PLAYS, str(path))

    def _rows(self, path: Path) -> Iterator[Rows]:
        place = 0
        for lines in word_lines(path):
            lines.refuse(lines.counts != 2, "{} words instead of a user and an item")
            line = np.flatnonzero(lines.counts == 2)
            user, item = (lines.words.take(pa.array(lines.starts[line] + i)) for i in (0, 1))
            yield lines.plays(user, item, line, place)
            place += len(line)
