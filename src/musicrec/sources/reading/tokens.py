"""Lines of words between white space, without a header: what sequence and pair files are.

Such files give no time: each item's place in the file stands for it, counted in seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from musicrec.sources.reading.files import Stored, Stretch, num_lines, stretches
from musicrec.sources.reading.listens import ListenColumns, Reading
from musicrec.sources.reading.rows import Broken, Fault, Lines, Mask, Rows, readable
from musicrec.sources.reading.rows import without_unreadable_lines as checked

#: How ``WordLines.plays`` are to be read.
PLAYS = Reading(columns=ListenColumns(user="user", item="item", time="place"), time="order")

#: A line is many plays, so a stretch is short.
STRETCH_BYTES = 2 << 20


class WordLines:
    """One stretch of lines as words.

    Attributes:
        words: every word of the stretch, in order.
        counts: ``(lines,)`` how many of them each line has; 0 where it is blank or unreadable.
        starts: ``(lines,)`` index into ``words`` of each line's first word.
        lines: ``(lines,)`` number of each line in the file.
    """

    def __init__(self, stretch: Stretch) -> None:
        self._text, self._broken = checked(stretch.text, stretch.first_line)
        self._bytes_read = stretch.bytes_read
        self.words, self.counts = _split(self._text)
        self.starts: Lines = np.cumsum(self.counts) - self.counts
        self.lines: Lines = np.arange(len(self.counts)) + stretch.first_line

    @cached_property
    def _texts(self) -> list[bytes]:
        return self._text.split(b"\n")

    def plays(self, user: pa.StringArray, item: pa.Array, line: Lines, place: int) -> Rows:
        """Rows of ``user``, ``item`` and place in the file.

        Args:
            line: index into ``lines`` of each row.
            place: of the first row.
        """
        places = np.arange(place, place + len(line))
        return Rows(
            columns=pa.table({"user": user, "item": item, "place": places}),
            lines=self.lines[line],
            raw=lambda row: readable(self._texts[line[row]]),
            broken=self._broken,
            bytes_read=self._bytes_read,
            last_line=int(self.lines[-1]),
        )

    def refuse(self, bad: Mask, reason: str) -> None:
        """Refuse the lines of a mask; ``{}`` in ``reason`` stands for their number of words."""
        for line in np.flatnonzero(bad & (self.counts > 0)).tolist():
            raw = readable(self._texts[line])
            said = reason.format(self.counts[line])
            self._broken.append(Broken(int(self.lines[line]), Fault.COLUMNS, said, raw))


def word_lines(path: Stored) -> Iterator[WordLines]:
    """The file as words, one stretch of lines at a time.

    Raises:
        DataError: the file cannot be opened or is torn.
    """
    return (WordLines(stretch) for stretch in stretches(path, STRETCH_BYTES))


def _split(text: bytes) -> tuple[pa.StringArray, Lines]:
    """All words, and how many each line has."""
    ends = np.flatnonzero(np.frombuffer(text, dtype=np.uint8) == ord("\n")) + 1
    if len(ends) < num_lines(text):
        ends = np.append(ends, len(text))
    offsets = np.concatenate([[0], ends]).astype(np.int32)
    lines = pa.StringArray.from_buffers(len(ends), pa.py_buffer(offsets), pa.py_buffer(text))
    split = pc.ascii_split_whitespace(pc.ascii_trim_whitespace(lines))
    counts = split.value_lengths().to_numpy().astype(np.int64)
    words = split.flatten()
    empty = pc.equal(words, "").to_numpy(zero_copy_only=False).astype(bool)
    if empty.any():  # a blank line splits into one empty word
        counts[empty[np.cumsum(counts) - counts]] = 0
        words = words.filter(pa.array(~empty))
    return words, counts
