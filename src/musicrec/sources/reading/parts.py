"""Several files read as one source: lines and bytes counted on from one to the next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from musicrec.interactions.schema import REJECT, ListenBatch

#: A file's name where a reason must say it, None for the file a line number alone speaks of.
Part = tuple[str | None, Iterator[ListenBatch]]


def in_sequence(parts: Iterable[Part]) -> Iterator[ListenBatch]:
    """The batches of all parts, one after the other.

    Lines go on counting from one part to the next, so a line names one row of the whole; the
    reason of a refused row says the file.
    """
    lines = read = 0
    for name, batches in parts:
        last_line = bytes_read = 0
        for batch in batches:
            last_line, bytes_read = batch.last_line, batch.bytes_read
            yield _counted_on(batch, lines, read, name)
        lines, read = lines + last_line, read + bytes_read


def _counted_on(batch: ListenBatch, lines: int, read: int, name: str | None) -> ListenBatch:
    return replace(
        batch,
        listens=_shift(batch.listens, lines),
        rejected=_shift(_placed(batch.rejected, name), lines),
        bytes_read=batch.bytes_read + read,
        last_line=batch.last_line + lines,
    )


def _shift(table: pa.Table, lines: int) -> pa.Table:
    place = table.schema.get_field_index("line")
    return table.set_column(place, table.schema.field(place), pc.add(table["line"], lines))


def _placed(rejected: pa.Table, name: str | None) -> pa.Table:
    if name is None or not len(rejected):
        return rejected
    reasons = [f"{name}: {reason}" for reason in rejected["reason"].to_pylist()]
    return rejected.set_column(1, REJECT.field("reason"), pa.array(reasons))
