"""From ``Rows`` to listens: what a format's columns mean, and which rows are no listens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa

from musicrec.errors import DataError
from musicrec.interactions.schema import ID, LISTEN, ListenBatch
from musicrec.sources.reading.columns import CheckedColumns, Unit
from musicrec.sources.reading.diagnosis import judge_first_rows, judge_times
from musicrec.sources.reading.rows import Broken, Fault, Refusals, Rows, reject_table
from musicrec.sources.reading.times import SECOND, Micros, latest_time
from musicrec.sources.reading.tracks import track_table


@dataclass(frozen=True, kw_only=True)
class ListenColumns:
    """The file's name for each thing a listen may say; None where the file does not say it.

    Attributes:
        item: the track's id; where it is missing, ``artist`` and ``title`` make one.
        time: when the play began.
        duration: length of the track, not of the play.
        ms_played: how long it was heard, in ``played_unit``.
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

    def mapping(self) -> dict[str, str]:
        """Meaning → column of the file, for what the file says."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: str(column) for name, column in values if column is not None}

    def text_types(self) -> dict[str, pa.DataType]:
        """Column of the file → how its text is best read: what repeats, by distinct values."""
        plain = {"time", "duration", "ms_played"}
        return {
            column: pa.string() if name in plain else ID for name, column in self.mapping().items()
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
            mapping = reading.columns.mapping()
            judge_first_rows(stretch, refused, mapping, place, reading.time)
            judge_times(stretch, batch.listens["occurred_at"], mapping, place, reading.time)
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
    columns = CheckedColumns(rows, reading.columns.mapping(), refusals)
    user = columns.user(reading.user)
    title, artist, album = (columns.texts(name) for name in ("title", "artist", "album"))
    track = columns.track(artist, title)
    ms_played = columns.milliseconds("ms_played", reading.played_unit)
    began = _began(columns, reading, rows, ms_played, latest)
    duration = columns.milliseconds("duration", reading.duration_unit)
    skipped, device = columns.truths("skipped"), columns.texts("device")
    chosen = pa.array(refusals.kept)
    track = track.kept(refusals.kept)
    listens = pa.Table.from_arrays(
        [
            pa.array(rows.lines).filter(chosen),
            user.kept(refusals.kept).as_ids(),
            track.as_ids(),
            pa.array(began).filter(chosen).cast(pa.timestamp("us", tz="UTC")),
            ms_played.filter(chosen),
            skipped.filter(chosen),
            device.strings().filter(chosen),
        ],
        schema=LISTEN,
    )
    said = {"title": title.strings(), "artist": artist.strings(), "album": album.strings()}
    said["duration_ms"] = duration
    tracks = track_table(track, {name: values.filter(chosen) for name, values in said.items()})
    broken = refusals.in_order()
    rejected = reject_table(broken)
    return ListenBatch(listens, tracks, rejected, rows.bytes_read, rows.last_line), broken


def _began(
    columns: CheckedColumns, reading: Reading, rows: Rows, ms_played: pa.Array, latest: int
) -> Micros:
    """Start of each play; without a time column, as many seconds as lines before it."""
    if "time" not in columns:
        return (rows.lines - 1) * SECOND
    times = columns.times(reading.time)
    if reading.time_is_end:
        played = ms_played.fill_null(0).to_numpy(zero_copy_only=False)
        times = times - played.astype(np.int64) * 1_000
    columns.refuse("time", times < 0, f"(read as {reading.time}) is before 1970", Fault.RANGE)
    columns.refuse(
        "time", times > latest, f"(read as {reading.time}) is in the future", Fault.RANGE
    )
    return times
