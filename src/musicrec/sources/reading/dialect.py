"""How a text table is written: its separator, its columns, its quotes."""

from __future__ import annotations

import codecs
import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from musicrec.errors import ConfigError, DataError, nearest
from musicrec.sources.reading.files import head

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
        encoding: one in which a line break is a line break, so not UTF-16.
    """

    separator: str
    names: tuple[str, ...]
    header_lines: int
    quoting: bool = True
    encoding: str = "utf-8"

    @cached_property
    def delimiter(self) -> bytes:
        """The one byte between values as the parser gets to see them."""
        return _UNIT_SEPARATOR if len(self.separator) > 1 else self.separator.encode()

    @cached_property
    def _value(self) -> re.Pattern[bytes]:
        delimiter = re.escape(self.delimiter)
        bare = rb"[^%s\n]*+" % delimiter
        return re.compile(rb'%s(?:"(?:[^"]++|"")*+"%s|(?!")%s)' % (delimiter, bare, bare))

    @cached_property
    def _record(self) -> re.Pattern[bytes]:
        delimiter = re.escape(self.delimiter)
        ends = rb"(?=%s|\n|\Z)" % delimiter
        value = rb'(?:"(?:[^"]++|"")*+"|(?!")[^%s\n]*+)%s' % (delimiter, ends)
        return re.compile(rb"%s(?:%s%s)*+(?=\n|\Z)" % (value, delimiter, value))

    def record_lines(self, text: bytes) -> int | None:
        """Lines of the record that begins ``text``; None if it never closes as a whole row.

        Stricter than ``num_values``: nothing may follow a closing quote. It would rather be the
        opening quote of another value, seen from inside.
        """
        match = self._record.match(text)
        if match is None or self.num_values(match[0]) != len(self.names):
            return None
        return match[0].count(b"\n") + 1

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
    path: Path,
    wanted: Collection[str],
    separator: str | None = None,
    header: bool = True,
    quoting: bool = True,
    encoding: str = "utf-8",
    key: str = "data",
) -> Dialect:
    """The dialect of a file, from its first line and what the user said of it.

    Args:
        wanted: names of columns that must be there; they help to choose the separator.
        separator: as given, or None to find it.
        key: the setting that holds ``separator``, for messages.

    Raises:
        DataError: a wanted column is not there; the message names the nearest, or the separator
            that would give it.
    """
    lines = _first_lines(path, encoding)
    blank = next((i for i, line in enumerate(lines) if line.strip()), None)
    if blank is None:
        raise DataError(f"{path} holds blank lines only")
    first = lines[blank]
    chosen = separator or _likeliest(first, wanted)
    _check_separator(chosen, key)
    values = split_line(first, chosen)
    names = values if header else [str(place + 1) for place in range(len(values))]
    header_lines = blank + 1 if header else 0
    dialect = Dialect(chosen, tuple(names), header_lines, quoting and len(chosen) == 1, encoding)
    _check_columns(path, dialect, wanted, first, key)
    return dialect


def check_encoding(encoding: str, key: str) -> str:
    """``encoding`` if lines can be cut before they are decoded; else a ConfigError."""
    try:
        cuttable = "a,\n".encode(encoding) == b"a,\n"
    except LookupError:
        cuttable = False
    if not cuttable:
        raise ConfigError(
            f"{key}.encoding={encoding} cannot be read; give utf-8, latin-1, cp1252 or another "
            "that keeps ASCII as it is"
        )
    return encoding


def split_line(line: str, separator: str) -> list[str]:
    """A header line's names, quotes and surrounding white space taken off."""
    if len(separator) > 1:
        return [value.strip() for value in line.split(separator)]
    between = re.escape(separator)
    value = re.compile(rf'(?:^|{between})(?:"((?:[^"]|"")*)"|([^{between}]*))')
    found = ((match[1], match[2]) for match in value.finditer(line))
    return [
        (bare if quoted is None else quoted.replace('""', '"')).strip() for quoted, bare in found
    ]


def _first_lines(path: Path, encoding: str) -> list[str]:
    text = head(path).removeprefix(codecs.BOM_UTF8).decode(encoding, errors="replace")
    return re.split(r"\r\n|\n|\r", text)


def _likeliest(first: str, wanted: Collection[str]) -> str:
    """The separator that gives most of the wanted columns, then most columns."""

    def fit(separator: str) -> tuple[int, int]:
        values = split_line(first, separator)
        return len(set(wanted) & set(values)), len(values)

    return max(SEPARATORS, key=fit)


def _check_separator(separator: str, key: str) -> None:
    if any(character in '"\r\n' for character in separator) or not separator.isascii():
        raise ConfigError(
            f"{key}.separator={separator!r} cannot separate columns; give one of "
            f"{' '.join(map(repr, SEPARATORS))} or another ASCII character"
        )


def _check_columns(
    path: Path, dialect: Dialect, wanted: Collection[str], first: str, key: str
) -> None:
    for name in wanted:
        if dialect.names.count(name) > 1:
            raise DataError(f"{path} has {dialect.names.count(name)} columns named {name!r}")
        if name in dialect.names:
            continue
        better = _likeliest(first, wanted)
        num_better = len(split_line(first, better))
        if len(dialect.names) == 1 and num_better > 1:
            raise DataError(
                f"{path} has only one column when split at {dialect.separator!r}; {better!r} "
                f"gives {num_better}: say {key}.separator={better!r}"
            )
        raise DataError(missing_column(path, name, dialect.names))


def missing_column(path: Path, name: str, names: Collection[str]) -> str:
    """The message for a column that is not there."""
    shown = ", ".join(list(names)[:12]) + (", …" if len(names) > 12 else "")
    return f"{path} has no column {name!r}{nearest(name, names)}; its columns: {shown}"
