"""Parquet as ``Rows``; a row's number stands for its line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from musicrec.errors import DataError
from musicrec.sources.reading.dialect import missing_column
from musicrec.sources.reading.files import STRETCH_LINES
from musicrec.sources.reading.rows import RAW_CHARACTERS, Rows


def parquet_rows(path: Path, wanted: list[str]) -> Iterator[Rows]:
    """The wanted columns, ``STRETCH_LINES`` rows at a time.

    Raises:
        DataError: the file is torn, or lacks a column.
    """
    size = path.stat().st_size
    try:
        with pq.ParquetFile(path) as file:
            for name in wanted:
                if name not in file.schema_arrow.names:
                    raise DataError(missing_column(path, name, file.schema_arrow.names))
            total, first = file.metadata.num_rows, 1
            for batch in file.iter_batches(STRETCH_LINES, columns=list(dict.fromkeys(wanted))):
                last = first + len(batch) - 1
                yield _rows(pa.table(batch), first, size * last // total)
                first = last + 1
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path} is torn or no Parquet file: {reason}") from error


def _rows(table: pa.Table, first: int, bytes_read: int) -> Rows:
    def raw(row: int) -> str:
        values = table.slice(row, 1).to_pylist()[0]
        text = json.dumps(values, default=str, ensure_ascii=False)
        return text.replace("\0", "\ufffd")[:RAW_CHARACTERS]

    return Rows(
        columns=table,
        lines=np.arange(first, first + len(table)),
        raw=raw,
        broken=[],
        bytes_read=bytes_read,
        last_line=first + len(table) - 1,
    )
