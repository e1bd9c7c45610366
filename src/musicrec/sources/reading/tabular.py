"""A table in a file, whatever its format: CSV and its kin, JSON or Parquet, told by content."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from musicrec.errors import DataError, nearest
from musicrec.sources.reading.delimited import delimited_rows
from musicrec.sources.reading.diagnosis import looks_like_json, refuse_no_text
from musicrec.sources.reading.dialect import check_encoding, guess_dialect, missing_column
from musicrec.sources.reading.files import PARQUET, existing_file, head, magic
from musicrec.sources.reading.objects import first_objects, object_rows, types_of
from musicrec.sources.reading.parquet import parquet_rows
from musicrec.sources.reading.rows import Rows


@dataclass(frozen=True, slots=True)
class TableFile:
    """A table and how it is written.

    Attributes:
        separator: between columns of a text table; None to find it.
        header: whether the first line of a text table names the columns.
        quoting: whether ``"`` around a value of a text table protects what is in it.
        encoding: of a text table.
        key: the setting that names this file, for messages.
    """

    path: Path
    separator: str | None = None
    header: bool = True
    quoting: bool = True
    encoding: str = "utf-8"
    key: str = "data"

    def __post_init__(self) -> None:
        check_encoding(self.encoding, self.key)

    def settings(self) -> dict[str, object]:
        """Everything but the path that changes what is read."""
        return {
            "separator": self.separator,
            "header": self.header,
            "quoting": self.quoting,
            "encoding": self.encoding,
        }

    def rows(self, wanted: Mapping[str, pa.DataType]) -> Iterator[Rows]:
        """The wanted columns, a bounded number of rows at a time.

        Args:
            wanted: column → the type of text a text table's column is read as.

        Raises:
            DataError: there is no such file, it is no table, or it lacks a wanted column.
        """
        path = self.existing()
        if magic(path).startswith(PARQUET):
            return parquet_rows(path, list(wanted))
        refuse_no_text(path)
        if looks_like_json(head(path)):
            return object_rows(path, _types(path, list(wanted)))
        dialect = guess_dialect(
            path, list(wanted), self.separator, self.header, self.quoting, self.encoding, self.key
        )
        return delimited_rows(path, dialect, wanted)

    def existing(self) -> Path:
        """The path, if a file is there."""
        return existing_file(self.path, f"{self.key}.path")


def _types(path: Path, wanted: list[str]) -> dict[str, pa.DataType]:
    """What pyarrow is to expect; DataError for a name no object has but a like one does."""
    objects = first_objects(path)
    names = sorted({name for found in objects for name in _paths(found)})
    for name in wanted:
        if name not in names and nearest(name, names):
            raise DataError(missing_column(path, name, names))
    return types_of(objects, wanted)


def _paths(found: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in found.items():
        yield prefix + name
        if isinstance(value, dict):
            yield from _paths(value, f"{prefix}{name}.")
