"""One column of several that may hold the same thing, as formats have grown over the years."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pyarrow as pa

from musicrec.sources.reading.rows import Rows
from musicrec.sources.reading.values import Texts


def first_of_each(rows: Rows, keys: Mapping[str, Sequence[str]]) -> Rows:
    """The rows with one column per meaning: in each row, the first of its keys with a value."""
    columns = {meaning: _first(rows.columns, names) for meaning, names in keys.items()}
    return replace(rows, columns=pa.table(columns))


def _first(table: pa.Table, names: Sequence[str]) -> pa.ChunkedArray | pa.Array:
    given = [name for name in names if table[name].null_count < len(table)]
    if len(given) <= 1:
        return table[given[0] if given else names[0]]
    first, *others = (Texts.of(table[name]) for name in given)
    for other in others:
        first = first.filled(other)
    return first.strings()
