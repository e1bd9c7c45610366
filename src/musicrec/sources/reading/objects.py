"""JSON as ``Rows``: one object a line, or one array of objects.

A column is a path such as ``track_metadata.artist_name``. pyarrow reads lines whose values have
the types expected; a piece with a bad line, or with a value of another type, is read object by
object instead, to the same result.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pajson

from musicrec.sources.reading.arrays import Elements, array_elements, first_elements
from musicrec.sources.reading.files import Stored, Stretch, head, stretches
from musicrec.sources.reading.rows import (
    Broken,
    Fault,
    Lines,
    Rows,
    readable,
    without_unreadable_lines,
)

#: Pieces in which a stretch is tried again once pyarrow refused it as a whole.
_PIECES = 32


def is_array(path: Stored) -> bool:
    """Whether the content is one JSON array rather than lines."""
    return head(path).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")


def object_rows(path: Stored, wanted: Mapping[str, pa.DataType]) -> Iterator[Rows]:
    """The objects of a file, a bounded number at a time; an array's elements count as lines.

    Args:
        wanted: path of each value → the type it usually has: string, float64, int64 or bool.

    Raises:
        DataError: the file cannot be opened, is torn, or is an array that breaks off.
    """
    if not is_array(path):
        return (_line_rows(stretch, wanted) for stretch in stretches(path))
    return (_element_rows(found, wanted) for found in array_elements(path))


def first_objects(path: Stored) -> list[dict[str, Any]]:
    """The objects within the head of a file; bad lines are left for the reading to refuse."""
    start = head(path)
    texts = first_elements(start) if is_array(path) else start.splitlines()
    found = (_object(text.removeprefix(codecs.BOM_UTF8))[0] for text in texts)
    return [one for one in found if one is not None]


def types_of(objects: list[dict[str, Any]], wanted: Sequence[str]) -> dict[str, pa.DataType]:
    """The type each value has in some objects; text where they differ."""
    return {name: _type_of([_value(found, name) for found in objects]) for name in wanted}


def _type_of(values: list[Any]) -> pa.DataType:
    kinds = {type(value) for value in values} - {type(None)}
    if kinds == {bool}:
        return pa.bool_()
    if kinds == {int}:
        return pa.int64()
    return pa.float64() if kinds and kinds <= {int, float} else pa.string()


def _line_rows(stretch: Stretch, wanted: Mapping[str, pa.DataType]) -> Rows:
    text, broken = without_unreadable_lines(stretch.text, stretch.first_line)
    lines = text.split(b"\n")
    numbers = np.flatnonzero([bool(line.strip()) for line in lines])
    filled = [lines[number] for number in numbers]
    last_line = stretch.first_line + len(lines) - 1 - (not lines[-1])
    return _rows(
        filled, numbers + stretch.first_line, wanted, broken, stretch.bytes_read, last_line
    )


def _element_rows(found: Elements, wanted: Mapping[str, pa.DataType]) -> Rows:
    places = np.arange(len(found.texts)) + found.first
    return _rows(found.texts, places, wanted, [], found.bytes_read, int(places[-1]))


def _rows(
    texts: list[bytes],
    lines: Lines,
    wanted: Mapping[str, pa.DataType],
    unreadable: list[Broken],
    bytes_read: int,
    last_line: int,
) -> Rows:
    """Objects as columns; texts that are none are broken."""
    broken = list(unreadable)
    kept = np.arange(len(texts))
    table = _parse(texts, wanted)
    if table is None:
        tables, parts = [], []
        for piece in np.array_split(kept, min(_PIECES, len(texts))):
            found = _parse([texts[row] for row in piece], wanted)
            if found is None:
                found, piece = _one_by_one(texts, lines, piece, list(wanted), broken)
            tables.append(_as_text(found))
            parts.append(piece)
        table, kept = pa.concat_tables(tables), np.concatenate(parts)
    return Rows(
        columns=table,
        lines=lines[kept],
        raw=lambda row: readable(texts[kept[row]]),
        broken=broken,
        bytes_read=bytes_read,
        last_line=last_line,
    )


def _parse(texts: list[bytes], wanted: Mapping[str, pa.DataType]) -> pa.Table | None:
    """pyarrow's reading; None if a text is no object or a value has another type."""
    if not texts:
        return pa.schema(list(wanted.items())).empty_table()
    text = b"\n".join(texts)
    options = pajson.ParseOptions(
        explicit_schema=_nested(wanted), unexpected_field_behavior="ignore"
    )
    whole = pajson.ReadOptions(use_threads=False, block_size=len(text) + 1)
    try:
        text.decode("utf-8")  # pyarrow takes any bytes for text
        table = pajson.read_json(pa.BufferReader(text), whole, options)
    except (pa.ArrowInvalid, UnicodeDecodeError):
        return None
    if len(table) != len(texts):
        return None
    return pa.table({name: _leaf(table, name) for name in wanted})


def _nested(wanted: Mapping[str, pa.DataType]) -> pa.Schema:
    """The schema of objects that hold every path of ``wanted``."""
    tree: dict[str, Any] = {}
    for name, leaf in wanted.items():
        *parents, last = name.split(".")
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = leaf
    return pa.schema(_fields(tree))


def _fields(tree: dict[str, Any]) -> list[pa.Field]:
    return [
        pa.field(name, pa.struct(_fields(kind)) if isinstance(kind, dict) else kind)
        for name, kind in tree.items()
    ]


def _leaf(table: pa.Table, name: str) -> pa.Array:
    first, *path = name.split(".")
    column = table[first].combine_chunks()
    return pc.struct_field(column, path) if path else column


def _one_by_one(
    texts: list[bytes], lines: Lines, piece: Lines, names: Sequence[str], broken: list[Broken]
) -> tuple[pa.Table, Lines]:
    """The objects among some texts, with every value as text; the others go to ``broken``."""
    objects, kept = [], []
    for row in piece.tolist():
        found, fault, reason = _object(texts[row])
        if found is None:
            broken.append(Broken(int(lines[row]), fault, reason, readable(texts[row])))
        else:
            objects.append(found)
            kept.append(row)
    columns = {
        name: pa.array([_text(_value(found, name)) for found in objects], pa.string())
        for name in names
    }
    return pa.table(columns), np.array(kept, dtype=np.int64)


def _object(text: bytes) -> tuple[dict[str, Any] | None, Fault, str]:
    try:
        found = json.loads(text)
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeError:
        return None, Fault.ENCODING, "bytes that are not UTF-8, or an escape that is no character"
    except (ValueError, RecursionError):
        return None, Fault.SYNTAX, "no whole JSON object"
    if not isinstance(found, dict):
        return None, Fault.SYNTAX, "JSON, but not an object"
    return found, Fault.SYNTAX, ""


def _value(found: Any, name: str) -> Any:
    """What an object holds at a path; None where the path leads nowhere."""
    for step in name.split("."):
        found = found.get(step) if isinstance(found, dict) else None
    return found


def _text(value: Any) -> str | None:
    """A value as the text of its column; what is no plain value is missing."""
    if isinstance(value, str):
        return value
    return json.dumps(value) if isinstance(value, bool | int | float) else None


def _as_text(table: pa.Table) -> pa.Table:
    return table.cast(pa.schema([(name, pa.string()) for name in table.column_names]))
