"""A stretch of a file as columns of text, before anyone asked what they mean.

Every format is first brought into ``Rows``; ``listens.py`` then reads listens off it, and
``tracks.py`` what is known of the tracks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from musicrec.interactions.schema import REJECT

#: What ``REJECT.raw`` keeps of a refused line.
RAW_CHARACTERS = 1_000

Lines = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class Fault(StrEnum):
    """What is wrong with a row, coarsely: what a file that is mostly bad has in common."""

    ENCODING = "encoding"
    COLUMNS = "columns"
    SYNTAX = "syntax"
    USER = "user"
    TRACK = "track"
    TIME = "time"
    RANGE = "range"
    NUMBER = "number"


@dataclass(frozen=True, slots=True)
class Broken:
    """A row that is refused."""

    line: int
    fault: Fault
    reason: str
    raw: str


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one stretch, each with as many values as the file has columns.

    Attributes:
        columns: the columns asked for, under the file's own names; text is dictionary-encoded.
        lines: the line each row starts on, rising.
        raw: the text of the i-th row, for those that are refused.
        broken: the rows that are not here, with the reason.
        last_line: the last line of the stretch, blank ones included.
    """

    columns: pa.Table
    lines: Lines
    raw: Callable[[int], str]
    broken: list[Broken]
    bytes_read: int
    last_line: int

    def chosen(self, rows: Mask) -> Rows:
        """Only the rows of a mask; the others are no listens, and nothing is said of them."""
        if rows.all():
            return self
        places = np.flatnonzero(rows)
        return replace(
            self,
            columns=self.columns.filter(pa.array(rows)),
            lines=self.lines[places],
            raw=lambda row: self.raw(int(places[row])),
        )


class Refusals:
    """Which rows of a stretch are refused, and why; the first reason found for a row stands.

    Attributes:
        kept: ``(rows,)`` the rows that still stand.
    """

    def __init__(self, rows: Rows) -> None:
        self.kept: Mask = np.ones(len(rows.lines), dtype=bool)
        self._rows = rows
        self._broken = list(rows.broken)

    def refuse(self, bad: Mask, fault: Fault, reason: str) -> None:
        """Refuse the rows of the mask ``bad`` that still stand.

        Args:
            reason: the same for like rows, so that they can be counted; their text is kept.
        """
        for row in np.flatnonzero(bad & self.kept).tolist():
            line = int(self._rows.lines[row])
            self._broken.append(Broken(line, fault, reason, self._rows.raw(row)))
        self.kept &= ~bad

    def in_order(self) -> list[Broken]:
        """Every refused row of the stretch, by line."""
        return sorted(self._broken, key=lambda broken: broken.line)


def readable(raw: bytes) -> str:
    """Bytes of a file as text Postgres can store: bad bytes and NUL replaced, cut at 1,000."""
    text = raw[: 4 * RAW_CHARACTERS].decode("utf-8", errors="replace")
    return text.replace("\0", "\ufffd")[:RAW_CHARACTERS]


def without_unreadable_lines(text: bytes, first_line: int) -> tuple[bytes, list[Broken]]:
    """The text with every line blanked that is not UTF-8 or holds a NUL, and those lines."""
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        pass
    else:
        if b"\0" not in text:
            return text, []
    lines = text.split(b"\n")
    broken = []
    for index, line in enumerate(lines):
        if reason := _unreadable(line):
            broken.append(Broken(first_line + index, Fault.ENCODING, reason, readable(line)))
            lines[index] = b""
    return b"\n".join(lines), broken


def _unreadable(line: bytes) -> str | None:
    if b"\0" in line:
        return "a NUL byte, which no text can hold"
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes that are not UTF-8"
    return None


def reject_table(broken: list[Broken]) -> pa.Table:
    """The rows as ``REJECT``."""
    return pa.table(
        {
            "line": [row.line for row in broken],
            "reason": [row.reason[:RAW_CHARACTERS] for row in broken],
            "raw": [row.raw[:RAW_CHARACTERS] for row in broken],
        },
        schema=REJECT,
    )
