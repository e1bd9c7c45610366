"""From ``Rows`` to listens: each column read, each bad row refused with its reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from musicrec.errors import DataError
from musicrec.interactions.schema import ID, LISTEN, ListenBatch
from musicrec.sources.diagnosis import judge_first_rows
from musicrec.sources.names import made_track_ids
from musicrec.sources.rows import Broken, Fault, Mask, Refusals, Rows, reject_table
from musicrec.sources.times import SECOND, Micros, latest_time, read_times
from musicrec.sources.tracks import track_table
from musicrec.sources.values import Texts, numbers, truths

Unit = Literal["ms", "s"]
MILLISECONDS = {"ms": 1, "s": 1_000}

#: Postgres indexes ids; an index entry holds some 2,700 bytes.
LONGEST_ID_BYTES = 1_000
LARGEST_MS = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class ListenColumns:
    """The file's name for each thing a listen may say; None where the file does not say it.

    Attributes:
        user: who listened.
        item: the track's id; where it is missing, ``artist`` and ``title`` make one.
        time: when the play began.
        title, artist, album, duration: of the track; the track's length is not the time played.
        ms_played: how long it was heard, in ``played_unit``.
        skipped: true/false, yes/no, t/f or 1/0.
        device: where it was played.
    """

    user: str | int | None = None
    item: str | int | None = None
    time: str | int | None = None
    title: str | int | None = None
    artist: str | int | None = None
    album: str | int | None = None
    duration: str | int | None = None
    ms_played: str | int | None = None
    skipped: str | int | None = None
    device: str | int | None = None

    def named(self) -> dict[str, str]:
        """Field → column of the file, for those that are mapped."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: str(column) for name, column in values if column is not None}

    def text_types(self) -> dict[str, pa.DataType]:
        """Column of the file → how its text is best read: what repeats, by distinct values."""
        plain = {"time", "duration", "ms_played"}
        return {
            column: pa.string() if name in plain else ID for name, column in self.named().items()
        }


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How the columns of one format become listens.

    Attributes:
        time: a value of ``times.TIME_FORMATS`` or a strptime format. ``order`` without a time
            column counts the lines.
        user: the listener of every row, for files that name none.
        time_is_end: the time column holds the end of the play, ``ms_played`` after its start.
    """

    columns: ListenColumns
    time: str
    played_unit: Unit = "ms"
    duration_unit: Unit = "ms"
    user: str | None = None
    time_is_end: bool = False


def listen_batches(rows: Iterator[Rows], reading: Reading, place: str) -> Iterator[ListenBatch]:
    """The listens of a file, stretch by stretch.

    Args:
        place: what to call the file in a message.

    Raises:
        DataError: most of the first rows are bad, or there is none.
    """
    latest = latest_time()
    judged = False
    for stretch in rows:
        batch, refused = read_listens(stretch, reading, latest)
        if not judged and (len(stretch.lines) or stretch.broken):
            judge_first_rows(stretch, refused, reading.columns.named(), reading.time, place)
            judged = True
        yield batch
    if not judged:
        raise DataError(f"{place} holds no rows")


def read_listens(rows: Rows, reading: Reading, latest: int) -> tuple[ListenBatch, list[Broken]]:
    """The listens of one stretch, and its refused rows by line.

    Args:
        latest: microseconds since 1970 after which a time is in the future.
    """
    refusals = Refusals(rows)
    columns = _Columns(rows, reading.columns, refusals)
    user = columns.user(reading.user)
    title, artist, album = (columns.texts(name) for name in ("title", "artist", "album"))
    track = columns.track(artist, title)
    ms_played = columns.milliseconds("ms_played", reading.played_unit)
    began = columns.began(reading, ms_played, latest)
    duration = columns.milliseconds("duration", reading.duration_unit)
    skipped = columns.truths("skipped")
    device = columns.texts("device")
    kept, chosen = refusals.kept, pa.array(refusals.kept)
    track = track.kept(kept)
    listens = pa.Table.from_arrays(
        [
            pa.array(rows.lines[kept]),
            user.kept(kept).as_ids(),
            track.as_ids(),
            pa.array(began[kept]).cast(pa.timestamp("us", tz="UTC")),
            ms_played.filter(chosen),
            skipped.filter(chosen),
            device.strings().filter(chosen),
        ],
        schema=LISTEN,
    )
    known = {"title": title.strings(), "artist": artist.strings(), "album": album.strings()}
    known["duration_ms"] = duration
    tracks = track_table(track, {name: column.filter(chosen) for name, column in known.items()})
    broken = refusals.in_order()
    rejected = reject_table(broken)
    return ListenBatch(listens, tracks, rejected, rows.bytes_read, rows.last_line), broken


class _Columns:
    """The mapped columns of one stretch; reading one refuses its bad rows."""

    def __init__(self, rows: Rows, mapping: ListenColumns, refusals: Refusals) -> None:
        self._rows = rows
        self._refusals = refusals
        self._column = mapping.named()

    @property
    def _num_rows(self) -> int:
        return len(self._rows.lines)

    def texts(self, name: str) -> Texts:
        if name not in self._column:
            return Texts.missing_everywhere(self._num_rows)
        texts = Texts.of(self._rows.columns[self._column[name]])
        holds_nul = texts.where(pc.match_substring(texts.values, "\0"))
        self._refusals.refuse(holds_nul, Fault.ENCODING, lambda _: f"a NUL in the {name}")
        return texts

    def user(self, everyone: str | None) -> Texts:
        if everyone is not None:
            return Texts.constant(everyone, self._num_rows)
        user = self.texts("user")
        self._refuse_unfit_ids(user, Fault.USER, "no user id")
        return user

    def track(self, artist: Texts, title: Texts) -> Texts:
        item = self.texts("item")
        if item.missing.any():
            item = item.filled(made_track_ids(artist, title))
        named = "title" in self._column and "artist" in self._column
        missing = "no track id, and not both artist and title" if named else "no track id"
        self._refuse_unfit_ids(item, Fault.TRACK, missing)
        return item

    def _refuse_unfit_ids(self, ids: Texts, fault: Fault, missing: str) -> None:
        self._refusals.refuse(ids.missing, fault, lambda _: missing)
        long = ids.where(pc.greater(pc.binary_length(ids.values), LONGEST_ID_BYTES))
        reason = f"an id of over {LONGEST_ID_BYTES:,} bytes"
        self._refusals.refuse(long, fault, lambda _: reason)

    def milliseconds(self, name: str, unit: Unit) -> pa.Array:
        """A duration as int32 milliseconds, null where it is not known."""
        if name not in self._column:
            return pa.nulls(self._num_rows, pa.int32())
        column = self._rows.columns[self._column[name]]
        found, bad = numbers(column)
        self._refuse_values(bad, column, f"{name} {{}} is no number")
        self._refuse_values(found < 0, column, f"{name} {{}} is negative")
        scaled = found * MILLISECONDS[unit]
        self._refuse_values(scaled > LARGEST_MS, column, f"{name} {{}} {unit} is over 24 days")
        fit = self._refusals.kept & ~np.isnan(found)
        return pa.array(np.where(fit, np.rint(scaled), 0).astype(np.int32), mask=~fit)

    def _refuse_values(self, bad: Mask, column: pa.ChunkedArray, reason: str) -> None:
        fault = Fault.NUMBER
        self._refusals.refuse(bad, fault, lambda row: reason.format(repr(str(column[row]))))

    def truths(self, name: str) -> pa.BooleanArray:
        if name not in self._column:
            return pa.nulls(self._num_rows, pa.bool_())
        column = self._rows.columns[self._column[name]]
        found, bad = truths(column)
        self._refuse_values(bad, column, f"{name} {{}} is neither true nor false")
        return found

    def began(self, reading: Reading, ms_played: pa.Array, latest: int) -> Micros:
        """Start of each play; without a time column, as many seconds as lines before it."""
        if "time" not in self._column:
            return (self._rows.lines - 1) * SECOND
        column = self._rows.columns[self._column["time"]]
        times, ok = read_times(column, reading.time)
        refuse = self._refusals.refuse
        missing = column.is_null().to_numpy().astype(bool)
        refuse(missing, Fault.TIME, lambda _: "no time")
        refuse(~ok, Fault.TIME, lambda row: f"time {str(column[row])!r} is not {reading.time}")
        if reading.time_is_end:
            played = ms_played.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
            times = times - played * 1_000
        read_as = f"(read as {reading.time})"
        refuse(
            times < 0,
            Fault.RANGE,
            lambda row: f"time {str(column[row])!r} {read_as} is before 1970",
        )
        refuse(
            times > latest,
            Fault.RANGE,
            lambda row: f"time {str(column[row])!r} {read_as} is in the future",
        )
        return times
