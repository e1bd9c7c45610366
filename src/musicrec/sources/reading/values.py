"""Columns of a file as values: text by its distinct values, numbers, truths.

Nothing here raises on a bad value: each reader answers with the rows that hold one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from musicrec.interactions.schema import ID
from musicrec.sources.reading.rows import Mask

Codes = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]

#: What files write for a number or a truth that is not known.
UNKNOWN = pa.array(["nan", "na", "n/a", "null", "none", "-"])

_TRUTHS = {
    **dict.fromkeys(("true", "t", "yes", "y", "1", "1.0"), True),
    **dict.fromkeys(("false", "f", "no", "n", "0", "0.0"), False),
}


@dataclass(frozen=True, slots=True)
class Texts:
    """A column of text by its distinct values; -1 stands for a missing one.

    Attributes:
        codes: ``(rows,)`` index into ``values``.
        values: distinct, never null or empty, without white space around them.
    """

    codes: Codes
    values: pa.StringArray

    @classmethod
    def of(cls, column: pa.ChunkedArray | pa.Array) -> Texts:
        """Any column as text; whole numbers that a file holds as floats lose their ``.0``."""
        if isinstance(column, pa.ChunkedArray):
            column = column.combine_chunks()
        if not pa.types.is_dictionary(column.type):
            column = _as_strings(column).dictionary_encode()
        values = column.dictionary.cast(pa.string())
        trimmed = pc.utf8_trim_whitespace(values)
        if not trimmed.equals(values) or pc.any(pc.equal(values, "")).as_py():
            text = pc.if_else(pc.equal(trimmed, ""), None, trimmed).take(column.indices)
            column = text.dictionary_encode()
            values = column.dictionary
        codes = column.indices.cast(pa.int32()).fill_null(-1).to_numpy(zero_copy_only=False)
        return cls(codes, values)

    @classmethod
    def constant(cls, value: str, num_rows: int) -> Texts:
        return cls(np.zeros(num_rows, dtype=np.int32), pa.array([value]))

    @classmethod
    def missing_everywhere(cls, num_rows: int) -> Texts:
        return cls(np.full(num_rows, -1, dtype=np.int32), pa.array([], pa.string()))

    @property
    def missing(self) -> Mask:
        return self.codes < 0

    def text(self, row: int) -> str:
        """The value of a row that has one."""
        value: str = self.values[int(self.codes[row])].as_py()
        return value

    def where(self, of_value: pa.BooleanArray) -> Mask:
        """The rows whose value is marked in ``of_value``, one mark per distinct value."""
        marks = np.append(of_value.to_numpy(zero_copy_only=False).astype(bool), False)
        return marks[self.codes]

    def filled(self, other: Texts) -> Texts:
        """These values, and ``other``'s where they are missing."""
        if not self.missing.any():
            return self
        if self.missing.all():
            return other
        text = pc.coalesce(self.strings(), other.strings())
        return Texts.of(text)

    def strings(self) -> pa.StringArray:
        """One string per row, null where missing."""
        return self.values.take(pa.array(self.codes, mask=self.missing))

    def mapped(self, rule: Callable[[str], str]) -> Texts:
        """``rule`` applied to each distinct value; equal results become one."""
        encoded = pa.array([rule(value) for value in self.values.to_pylist()], pa.string())
        return Texts.of(encoded.take(pa.array(self.codes, mask=self.missing)))

    def kept(self, rows: Mask) -> Texts:
        """The rows of the mask, with no value left that none of them uses."""
        codes = self.codes[rows]
        used = np.zeros(len(self.values) + 1, dtype=bool)
        used[codes] = True
        used[-1] = False  # where the code -1 of a missing value points
        place = np.cumsum(used, dtype=np.int32) - 1
        place[-1] = -1
        return Texts(place[codes], self.values.filter(pa.array(used[:-1])))

    def as_ids(self) -> pa.DictionaryArray:
        """The column as ``schema.ID``; no row may be missing."""
        return pa.DictionaryArray.from_arrays(pa.array(self.codes), self.values).cast(ID)


def _as_strings(column: pa.Array) -> pa.Array:
    if pa.types.is_floating(column.type):
        whole = pc.all(pc.equal(pc.floor(column), column)).as_py()
        column = column.cast(pa.int64()) if whole in (True, None) else column
    return column.cast(pa.string())


def cast_or_null(column: pa.Array, to: pa.DataType) -> pa.Array:
    """``column`` cast, with null for each value that does not cast.

    pyarrow casts all or nothing, so a failing half is halved again: cheap while bad values are
    few, and bounded when they are many.
    """
    try:
        return column.cast(to)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        if len(column) == 1:
            return pa.nulls(1, to)
    middle = len(column) // 2
    halves = [cast_or_null(column[:middle], to), cast_or_null(column[middle:], to)]
    return pa.concat_arrays(halves)


def plain(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """One array of plain values, whatever chunks or dictionary the file had."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def numbers(column: pa.ChunkedArray | pa.Array) -> tuple[Floats, Mask]:
    """Each row's number, NaN where missing; and the rows that hold something else."""
    values = plain(column)
    if pa.types.is_boolean(values.type):
        return np.full(len(values), np.nan), _mask(pc.is_valid(values))
    if pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
        found = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        return found, np.isinf(found)
    try:
        parsed = values.cast(pa.float64())
        missing = pc.is_null(values)
    except pa.ArrowInvalid:
        text = pc.utf8_trim_whitespace(values.cast(pa.string()))
        missing = pc.is_in(pc.utf8_lower(text), value_set=UNKNOWN)
        missing = pc.or_(pc.or_(missing, pc.is_null(text)), pc.equal(text, "").fill_null(True))
        parsed = cast_or_null(pc.if_else(missing, None, text), pa.float64())
    found = parsed.to_numpy(zero_copy_only=False).astype(np.float64)
    bad = ~_mask(missing) & ~np.isfinite(found) & ~_written_nan(values, found)
    return found, bad


def _written_nan(values: pa.Array, found: Floats) -> Mask:
    """Rows that say NaN in so many letters: a missing number, not a bad one."""
    if not np.isnan(found).any():
        return np.zeros(len(found), dtype=bool)
    said = pc.equal(pc.utf8_lower(pc.utf8_trim_whitespace(values)), "nan").fill_null(False)
    return _mask(said)


def truths(column: pa.ChunkedArray | pa.Array) -> tuple[pa.BooleanArray, Mask]:
    """Each row as true, false or null (not known); and the rows that say something else."""
    values = plain(column)
    if pa.types.is_boolean(values.type):
        return values, np.zeros(len(values), dtype=bool)
    texts = Texts.of(values)
    words = [value.lower() for value in texts.values.to_pylist()]
    unknown = set(UNKNOWN.to_pylist())
    answers = pa.array([_TRUTHS.get(word) for word in words], pa.bool_())
    odd = pa.array([word not in _TRUTHS and word not in unknown for word in words], pa.bool_())
    return answers.take(pa.array(texts.codes, mask=texts.missing)), texts.where(odd)


def _mask(values: pa.BooleanArray) -> Mask:
    mask: Mask = values.to_numpy(zero_copy_only=False).astype(bool)
    return mask
