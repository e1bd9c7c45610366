"""Lines of words between white space, without a header: what sequence and pair files are.

Such files give no time: each item's place in the file stands for it, counted in seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from musicrec.interactions.schema import ID
from musicrec.sources.files import num_lines, stretches
from musicrec.sources.listens import ListenColumns, Reading
from musicrec.sources.rows import Broken, Fault, Lines, Rows, readable, without_unreadable_lines

#: How ``play_rows`` is to be read.
PLAYS = Reading(columns=ListenColumns(user="user", item="item", time="place"), time="order")


@dataclass(frozen=True, slots=True)
class TokenLines:
    """One stretch of lines as words.

    Attributes:
        words: every word of the stretch, in order.
        counts: ``(lines,)`` how many of them each line has; 0 where it is blank or unreadable.
        first_line: number of the first line.
        text: the lines themselves, for those that are refused.
    """

    words: pa.StringArray
    counts: Lines
    first_line: int
    text: bytes
    unreadable: list[Broken]
    bytes_read: int

    @property
    def lines(self) -> Lines:
        """The number of each line."""
        return np.arange(self.first_line, self.first_line + len(self.counts))

    @property
    def starts(self) -> Lines:
        """``(lines,)`` index into ``words`` of each line's first word."""
        starts: Lines = np.cumsum(self.counts) - self.counts
        return starts

    def raw(self, line: int) -> str:
        """The text of a line, by its number in the file."""
        return readable(self.text.split(b"\n")[line - self.first_line])


def token_lines(path: Path) -> Iterator[TokenLines]:
    """The file as words, one stretch of lines at a time.

    Raises:
        DataError: the file cannot be opened or is torn.
    """
    for stretch in stretches(path):
        text, unreadable = without_unreadable_lines(stretch.text, stretch.first_line)
        words, counts = _split(text)
        yield TokenLines(
            words, counts, stretch.first_line, text, unreadable, stretch.bytes_read
        )


def _split(text: bytes) -> tuple[pa.StringArray, Lines]:
    """All words, and how many each line has."""
    ends = np.flatnonzero(np.frombuffer(text, dtype=np.uint8) == ord("\n")) + 1
    if len(ends) < num_lines(text):
        ends = np.append(ends, len(text))
    offsets = np.concatenate([[0], ends]).astype(np.int32)
    lines = pa.StringArray.from_buffers(len(ends), pa.py_buffer(offsets), pa.py_buffer(text))
    words = pc.ascii_split_whitespace(pc.ascii_trim_whitespace(lines))
    counts = words.value_lengths().to_numpy().astype(np.int64)
    flat = words.flatten()
    # A blank line splits into one empty word.
    blank = pc.equal(flat, "")
    if pc.any(blank).as_py():
        counts[pc.starts...]
    return flat, counts
