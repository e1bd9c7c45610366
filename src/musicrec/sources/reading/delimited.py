"""Text tables (CSV, TSV, any separator) as ``Rows``: pyarrow parses, nothing is lost silently.

A record is usually a line, and then pyarrow's answer stands. Only where a value holds a line
break, or a quote never closes, is a stretch taken apart record by record.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from musicrec.sources.reading.dialect import Dialect
from musicrec.sources.reading.files import num_lines, stretches
from musicrec.sources.reading.rows import (
    Broken,
    Fault,
    Lines,
    Mask,
    Rows,
    readable,
    without_unreadable_lines,
)

#: A quoted value may span so many lines; beyond, the quote is taken for a slip.
LONGEST_RECORD_LINES = 100

#: What a text column says for "nothing"; ``\N`` is Postgres' and Hive's word.
NULLS = ["", "\\N"]


def delimited_rows(
    path: Path, dialect: Dialect, wanted: Mapping[str, pa.DataType]
) -> Iterator[Rows]:
    """The rows of a text table, one stretch of lines at a time.

    Args:
        wanted: the columns to keep, with the type of text each is read as.

    Raises:
        DataError: the file cannot be opened or is torn.
    """
    rest = b""
    for stretch in stretches(path):
        first_line = stretch.first_line - rest.count(b"\n")
        text = rest + _utf8(stretch.text, dialect.encoding)
        if first_line == 1:
            text = _blank_header(text, dialect.header_lines)
        text, unreadable = without_unreadable_lines(text, first_line)
        if len(dialect.separator) > 1:
            text = text.replace(dialect.separator.encode(), dialect.delimiter)
        records = _Records(dialect, wanted, text, first_line, stretch.at_end)
        rest = records.rest
        yield Rows(
            columns=records.table,
            lines=records.starts[records.kept],
            raw=records.raw,
            broken=unreadable + records.broken,
            bytes_read=stretch.bytes_read,
            last_line=first_line + num_lines(text) - 1 - rest.count(b"\n"),
        )


def _utf8(text: bytes, encoding: str) -> bytes:
    """The text in UTF-8; a byte that is none in ``encoding`` stays, for its line to be refused."""
    if encoding == "utf-8":
        return text
    return text.decode(encoding, "surrogateescape").encode("utf-8", "surrogateescape")


def _blank_header(text: bytes, header_lines: int) -> bytes:
    """The header made blank lines, so that the lines below keep their numbers."""
    start = 0
    for _ in range(header_lines):
        start = text.find(b"\n", start) + 1 or len(text)
    return b"\n" * header_lines + text[start:]


class _Records:
    """One stretch, parsed.

    Attributes:
        table: the wanted columns of every record that has all its values.
        starts: the line each record starts on, whole or broken.
        kept: index into ``starts`` of each row of ``table``.
        broken: records with another number of values than the table has columns.
        rest: the text of a record still open at the end of the stretch.
    """

    def __init__(
        self,
        dialect: Dialect,
        wanted: Mapping[str, pa.DataType],
        text: bytes,
        first_line: int,
        at_end: bool,
    ) -> None:
        self.rest = b""
        self.broken: list[Broken] = []
        self.starts: Lines = np.arange(first_line, first_line + num_lines(text))
        self._dialect = dialect
        self._text = text
        self._pieces: list[bytes] | None = None
        self.table, invalid = _read_csv(dialect, wanted, text)
        if self._spans_lines(len(self.table) + len(invalid)):
            self._take_apart(first_line, at_end)
            whole = b"".join(piece + b"\n" for piece in self.pieces)
            self.table, invalid = _read_csv(dialect, wanted, whole)
        self._put_aside(invalid)

    @property
    def pieces(self) -> list[bytes]:
        """The records one by one; cut only when somebody asks, which is for a refused row."""
        if self._pieces is None:
            self._pieces = self._text.split(b"\n")[: len(self.starts)]
        return self._pieces

    def raw(self, row: int) -> str:
        """The text of a row of ``table``."""
        return self._shown(int(self.kept[row]))

    def _shown(self, record: int) -> str:
        separator = self._dialect.separator.encode()
        return readable(self.pieces[record].replace(self._dialect.delimiter, separator))

    def _spans_lines(self, num_records: int) -> bool:
        """Whether a record holds a line break: fewer records than lines, or the last one open."""
        if not self._dialect.quoting or b'"' not in self._text:
            return False
        last = self._text.rstrip(b"\n").rpartition(b"\n")[2]
        return num_records != len(self.starts) or self._dialect.num_values(last) is None

    def _take_apart(self, first_line: int, at_end: bool) -> None:
        """Find the records where lines are not records.

        A record of several lines must have as many values as the table has columns. Otherwise
        its quote is a slip: the line that opens it is broken, and reading goes on below it.
        """
        lines = self._text.split(b"\n")[: len(self.starts)]
        pieces: list[bytes] = []
        starts: list[int] = []
        line = 0
        while line < len(lines):
            length = _record_length(self._dialect, lines, line)
            if length is None and not at_end and len(lines) - line < LONGEST_RECORD_LINES:
                self.rest = b"\n".join(lines[line:]) + b"\n"
                break
            if length is None:
                reason = "a quote opens on this line and never closes"
                raw = readable(lines[line])
                self.broken.append(Broken(first_line + line, Fault.COLUMNS, reason, raw))
            else:
                pieces.append(b"\n".join(lines[line : line + length]))
                starts.append(first_line + line)
            line += length or 1
        self._pieces, self.starts = pieces, np.array(starts, dtype=np.int64)

    def _put_aside(self, invalid: list[pacsv.InvalidRow]) -> None:
        """Leave blank lines out, and name the records that are not rows."""
        records = np.arange(len(self.starts))
        self.kept = np.delete(records, [row.number - 1 for row in invalid])
        for row in invalid:
            if row.text.strip():
                reason = f"{row.actual_columns} columns instead of {row.expected_columns}"
                record = row.number - 1
                line = int(self.starts[record])
                self.broken.append(Broken(line, Fault.COLUMNS, reason, self._shown(record)))
        if self._text.startswith(b"\n") or b"\n\n" in self._text:
            filled = ~self._blank()[self.kept]
            self.table, self.kept = self.table.filter(pa.array(filled)), self.kept[filled]

    def _blank(self) -> Mask:
        """``(records,)`` whether a record is an empty line."""
        if self._pieces is not None:
            return np.array([not piece for piece in self._pieces], dtype=bool)
        ends = np.flatnonzero(np.frombuffer(self._text, dtype=np.uint8) == ord("\n"))
        blank = np.zeros(len(self.starts), dtype=bool)
        blank[: len(ends)] = np.diff(ends, prepend=-1) == 1
        return blank


def _record_length(dialect: Dialect, lines: list[bytes], start: int) -> int | None:
    """Lines of the record that begins at ``start``; None if it never closes as a whole row."""
    if b'"' not in lines[start] or dialect.num_values(lines[start]) is not None:
        return 1
    return dialect.record_lines(b"\n".join(lines[start : start + LONGEST_RECORD_LINES]))


def _read_csv(
    dialect: Dialect, wanted: Mapping[str, pa.DataType], text: bytes
) -> tuple[pa.Table, list[pacsv.InvalidRow]]:
    """pyarrow's reading: the rows, and the records with a wrong number of values."""
    invalid: list[pacsv.InvalidRow] = []

    def put_aside(row: pacsv.InvalidRow) -> str:
        invalid.append(row)
        return "skip"

    if not text:
        return pa.schema(list(wanted.items())).empty_table(), invalid
    table = pacsv.read_csv(
        pa.BufferReader(text),
        # One thread and one block: only then does a refused row know its number.
        pacsv.ReadOptions(
            use_threads=False, column_names=list(dialect.names), block_size=len(text) + 1
        ),
        pacsv.ParseOptions(
            delimiter=dialect.delimiter.decode(),
            quote_char='"' if dialect.quoting else False,
            newlines_in_values=dialect.quoting,
            ignore_empty_lines=False,
            invalid_row_handler=put_aside,
        ),
        pacsv.ConvertOptions(
            column_types=dict(wanted),
            include_columns=list(wanted),
            strings_can_be_null=True,
            null_values=NULLS,
            check_utf8=False,
        ),
    )
    return table, invalid
