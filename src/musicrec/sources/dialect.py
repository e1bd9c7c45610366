"""How a text table is written: its separator, its columns, its quotes."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from musicrec.errors import ConfigError, DataError, nearest
from musicrec.sources.files import head

#: Separators that are tried where none is given, the likeliest first.
SEPARATORS = (",", "\t", ";", "|", "::")

_UNIT_SEPARATOR = b"\x1f"


@dataclass(frozen=True)
class Dialect:
    """How a text table is written.

    Attributes:
        separator: one character, or several (then there is no quoting).
        names: the columns; ``"1"``, ``"2"``, … where the file has no header.
        header_lines: lines to pass over before the first row.
        quoting: whether ``"`` around a value protects separators and line breaks in it.
    """

    separator: str
    names: tuple[str, ...]
    header_lines: int
    quoting: bool = True

    @cached_property
    def delimiter(self) -> bytes:
        """The one byte between values as the parser gets to see them."""
        return _UNIT_SEPARATOR if len(self.separator) > 1 else self.separator.encode()

    @cached_property
    def _value(self) -> re.Pattern[bytes]:
        delimiter = re.escape(self.delimiter)
        bare = rb"[^%s\n]*+" % delimiter
        return re.compile(rb'%s(?:"(?:[^"]++|"")*+"%s|(?!")%s)' % (delimiter, bare, bare))

    def num_values(self, record: bytes) -> int | None:
        """How many values a record has; None while a quote is still open at its end.

        Reads as pyarrow does: only a quote that begins a value opens, and what follows the
        closing one belongs to the value.
        """
        record = self.delimiter + record
        position = num = 0
        while position < len(record):
            match = self._value.match(record, position)
            if match is None:
                return None
            position, num = match.end(), num + 1
        return num


def guess_dialect(
    path: Path, wanted: Collection[str], separator: str | None, header: bool
) -> Dialect:
    """The dialect of a file, from its first lines and what the user said of it.

    Args:
        wanted: names of columns that must be there; they help to choose the separator.
        separator: as given, or None to find it.

    Raises:
        DataError: a wanted column is not there; the message names the nearest, or the separator
            that would give it.
    """
    lines = _first_lines(path)
    blank = next((i for i, line in enumerate(lines) if line.strip()), None)
    if blank is None:
        raise DataError(f"{path} holds blank lines only")
    first = lines[blank]
    chosen = separator or _likeliest(first, wanted)
    _check_separator(chosen)
    values = split_line(first, chosen)
    if not header:
        names = tuple(str(position) for position in range(1, len(values) + 1))
        dialect = Dialect(chosen, names, 0, quoting=len(chosen) == 1)
    else:
        dialect = Dialect(chosen, tuple(values), blank + 1, quoting=len(chosen) == 1)
    _check_columns(path, dialect, wanted, first)
    return dialect


def split_line(line: str, separator: str) -> list[str]:
    """A header line's names, quotes and surrounding white space taken off."""
    if len(separator) > 1:
        return [value.strip() for value in line.split(separator)]
    pattern = r'(?:^|%s)\s*(?:"((?:[^"]|"")*)"|([^%s]*))' % (re.escape(separator), re.escape(separator))
    names = [m[1].replace('""', '"') if m[1] is not None else m[2] for m in re.finditer(pattern, line)]
    return [name.strip() for name in names]


def _first_lines(path: Path) -> list[str]:
    text = head(path).removeprefix(b"\xef\xbb\xbf").decode("utf-8", errors="replace")
    return re.split(r"\r\n|\n|\r", text)


def _likeliest(first: str, wanted: Collection[str]) -> str:
    """The separator that gives most of the wanted columns, then most columns."""

    def fit(separator: str) -> tuple[int, int]:
        values = split_line(first, separator)
        return len(set(wanted) & set(values)), len(values)

    return max(SEPARATORS, key=fit)


def _check_separator(separator: str) -> None:
    bad = separator == "" or any(c in '"\r\n' for c in separator) or not separator.isascii()
    if bad:
        raise ConfigError(
            f"data.separator={separator!r} cannot separate columns; give one of "
            f"{' '.join(map(repr, SEPARATORS))} or another ASCII character"
        )


def _check_columns(path: Path, dialect: Dialect, wanted: Collection[str], first: str) -> None:
    missing = [name for name in wanted if name not in dialect.names]
    twice = [name for name in wanted if dialect.names.count(name) > 1]
    if twice:
        raise DataError(f"{path} has {dialect.names.count(twice[0])} columns named {twice[0]!r}")
    if not missing:
        return
    better = _likeliest(first, wanted)
    if len(dialect.names) == 1 and len(split_line(first, better)) > 1:
        raise DataError(
            f"{path} has only one column when split at {dialect.separator!r}; {better!r} gives "
            f"{len(split_line(first, better))}: say data.separator={better!r}"
        )
    raise DataError(missing_column(path, missing[0], dialect.names))


def missing_column(path: Path, name: str, names: Collection[str]) -> str:
    """The message for a column that is not there."""
    shown = ", ".join(list(names)[:12]) + (", …" if len(names) > 12 else "")
    return f"{path} has no column {name!r}{nearest(name, names)}; its columns: {shown}"
