"""The columns of one stretch, read and checked: whoever asks for a column refuses its bad rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from musicrec.errors import ConfigError
from musicrec.sources.reading.names import made_track_ids
from musicrec.sources.reading.rows import Fault, Mask, Refusals, Rows
from musicrec.sources.reading.times import Micros, read_times
from musicrec.sources.reading.values import Floats, Texts, numbers, truths

Unit = Literal["ms", "s"]
MILLISECONDS = {"ms": 1, "s": 1_000}

#: Postgres indexes ids; an index entry holds some 2,700 bytes.
LONGEST_ID_BYTES = 1_000
LARGEST_MS = 2**31 - 1


def check_unit(key: str, unit: str) -> None:
    """ConfigError unless ``unit`` is one of ``MILLISECONDS``."""
    if unit not in MILLISECONDS:
        raise ConfigError(f"{key}={unit} is no unit; choose {' | '.join(MILLISECONDS)}")


class CheckedColumns:
    """One stretch, by what its columns mean.

    Args:
        mapping: meaning → the file's column, for what the file says.
    """

    def __init__(self, rows: Rows, mapping: Mapping[str, str], refusals: Refusals) -> None:
        self._rows = rows
        self._refusals = refusals
        self._mapping = mapping

    @property
    def num_rows(self) -> int:
        return len(self._rows.lines)

    def __contains__(self, name: str) -> bool:
        return name in self._mapping

    def stored(self, name: str) -> pa.ChunkedArray:
        """The column as the file has it."""
        return self._rows.columns[self._mapping[name]]

    def texts(self, name: str) -> Texts:
        """A column of text; a row with a NUL in it, which Postgres cannot store, is refused."""
        if name not in self:
            return Texts.missing_everywhere(self.num_rows)
        texts = Texts.of(self.stored(name))
        holds_nul = texts.where(pc.match_substring(texts.values, "\0"))
        self._refusals.refuse(holds_nul, Fault.ENCODING, f"a NUL in the {name}")
        return texts

    def user(self, everyone: str | None) -> Texts:
        """The listener's id: ``everyone`` where one person made every row."""
        if everyone is not None:
            return Texts.constant(everyone, self.num_rows)
        user = self.texts("user")
        self._refuse_unfit_ids(user, Fault.USER, "no user id")
        return user

    def track(self, artist: Texts, title: Texts) -> Texts:
        """The track's id, made from artist and title where the file gives none."""
        item = self.texts("item")
        if item.missing.any():
            item = item.filled(made_track_ids(artist, title))
        named = "title" in self and "artist" in self
        missing = "no track id, and not both artist and title" if named else "no track id"
        self._refuse_unfit_ids(item, Fault.TRACK, missing)
        return item

    def _refuse_unfit_ids(self, ids: Texts, fault: Fault, missing: str) -> None:
        self._refusals.refuse(ids.missing, fault, missing)
        long = ids.where(pc.greater(pc.binary_length(ids.values), LONGEST_ID_BYTES))
        self._refusals.refuse(long, fault, f"an id of over {LONGEST_ID_BYTES:,} bytes")

    def milliseconds(self, name: str, unit: Unit) -> pa.Array:
        """A duration as int32 milliseconds, null where it is not known."""
        found = self.numbers(name) * MILLISECONDS[unit]
        self.refuse(name, found < 0, "is negative")
        self.refuse(name, found > LARGEST_MS, f"({unit}) is over 24 days")
        fit = (found >= 0) & (found <= LARGEST_MS)
        return pa.array(np.where(fit, np.rint(found), 0).astype(np.int32), mask=~fit)

    def numbers(self, name: str) -> Floats:
        """A column of numbers, NaN where it is not known."""
        if name not in self:
            return np.full(self.num_rows, np.nan)
        found, bad = numbers(self.stored(name))
        self.refuse(name, bad, "is no number")
        return np.where(bad, np.nan, found)

    def truths(self, name: str) -> pa.BooleanArray:
        """A column of true and false, null where it is not known."""
        if name not in self:
            return pa.nulls(self.num_rows, pa.bool_())
        found, bad = truths(self.stored(name))
        self.refuse(name, bad, "is neither true nor false")
        return found

    def times(self, time: str) -> Micros:
        """The time column in microseconds since 1970; a row without one is refused."""
        times, ok = read_times(self.stored("time"), time)
        missing = self.stored("time").is_null().to_numpy().astype(bool)
        self._refusals.refuse(missing, Fault.TIME, "no time")
        self.refuse("time", ~ok, f"is not {time}", Fault.TIME)
        return times

    def refuse(self, name: str, bad: Mask, reason: str, fault: Fault = Fault.NUMBER) -> None:
        """Refuse rows for the value they have in a column."""
        self._refusals.refuse(bad, fault, f"{name} {reason}")
