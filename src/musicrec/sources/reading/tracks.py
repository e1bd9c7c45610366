"""What a source says of its tracks, as ``TRACK`` rows; and a file that says nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa

from musicrec.errors import ConfigError, DataError
from musicrec.interactions.schema import AUDIO_FEATURES, ID, LISTEN, TRACK, ListenBatch
from musicrec.sources.reading.columns import CheckedColumns, Unit, check_unit
from musicrec.sources.reading.diagnosis import judge_first_rows
from musicrec.sources.reading.rows import Broken, Refusals, Rows, reject_table
from musicrec.sources.reading.tabular import TableFile
from musicrec.sources.reading.values import Texts

#: Audio features that may leave 0..1; the rest may not.
_UNBOUNDED = {"tempo", "loudness"}

#: What catalogues write for a release date they do not know.
_NO_DATE = ("0", "0000", "0000-00-00", "nan", "None", "null")

_DATE = re.compile(r"(\d{4})(?:\.0)?(?:-(\d{2}))?(?:-(\d{2}))?(?:[T ].*)?")


def track_table(track: Texts, said: Mapping[str, pa.Array]) -> pa.Table:
    """One row per track that something is said of: the first value of each field.

    Args:
        track: the track of each row, none missing.
        said: ``TRACK`` field → its value in each row, null where that row does not say.
    """
    num_tracks = len(track.values)
    known = np.zeros(num_tracks, dtype=bool)
    columns = {field.name: pa.nulls(num_tracks, field.type) for field in TRACK}
    columns["track_id"] = track.values
    for name, values in said.items():
        valid = values.is_valid().to_numpy(zero_copy_only=False).astype(bool)
        rows = np.flatnonzero(valid)[::-1]
        # Of several rows written to one place numpy keeps the last: reversed, the first one.
        first = np.full(num_tracks, -1, dtype=np.int64)
        first[track.codes[rows]] = rows
        known |= first >= 0
        columns[name] = values.take(pa.array(first, mask=first < 0)).cast(TRACK.field(name).type)
    return pa.Table.from_arrays(list(columns.values()), schema=TRACK).filter(pa.array(known))


@dataclass(frozen=True, kw_only=True)
class TrackColumns:
    """The track file's name for each thing known of a track; None where it does not say.

    Attributes:
        item: the id as the plays have it; where it is missing, ``artist`` and ``title`` make one.
        released_on: ``2019-06-14``, ``2019-06`` or ``2019``; an unknown day or month is the first.
        duration: in ``duration_unit``.
        tags: one text, split at ``tags_separator``, or a list.
    """

    item: str | int | None = None
    title: str | int | None = None
    artist: str | int | None = None
    album: str | int | None = None
    released_on: str | int | None = None
    duration: str | int | None = None
    tags: str | int | None = None
    danceability: str | int | None = None
    energy: str | int | None = None
    valence: str | int | None = None
    tempo: str | int | None = None
    loudness: str | int | None = None
    acousticness: str | int | None = None
    instrumentalness: str | int | None = None
    speechiness: str | int | None = None
    liveness: str | int | None = None

    def mapping(self) -> dict[str, str]:
        """Meaning → column of the file, for what the file says."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: str(column) for name, column in values if column is not None}


class TrackFile:
    """A table of tracks beside the plays; ``configs/data/table.yaml`` documents the arguments.

    Read after the plays: it fills in what is known of tracks and adds those nobody has played.
    """

    def __init__(
        self,
        path: str | Path | None,
        columns: TrackColumns,
        duration_unit: Unit = "ms",
        tags_separator: str = "|",
        separator: str | None = None,
        header: bool = True,
        quoting: bool = True,
        encoding: str = "utf-8",
    ) -> None:
        check_unit("data.tracks.duration_unit", duration_unit)
        self.given = path is not None
        mapping = columns.mapping()
        if self.given and "item" not in mapping and not {"artist", "title"} <= mapping.keys():
            raise ConfigError(
                "data.tracks.columns names neither item nor both artist and title: "
                "no row could be matched to a track"
            )
        self._columns = columns
        self._unit = duration_unit
        self._tags_separator = tags_separator
        self.table = TableFile(
            Path(path or ""), separator, header, quoting, encoding, key="data.tracks"
        )

    def settings(self) -> dict[str, object]:
        """Everything but the path that changes what is read."""
        return {
            "columns": asdict(self._columns),
            "duration_unit": self._unit,
            "tags_separator": self._tags_separator,
            **self.table.settings(),
        }

    def batches(self) -> Iterator[ListenBatch]:
        """Batches of tracks without a listen.

        Raises:
            DataError: the file cannot be read, or most of its first rows are bad.
        """
        numeric = {"duration", *AUDIO_FEATURES}
        mapping = self._columns.mapping()
        types = {column: pa.string() if name in numeric else ID for name, column in mapping.items()}
        judged = False
        for rows in self.table.rows(types):
            batch, refused = self._read(rows, mapping)
            if not judged:
                judge_first_rows(rows, refused, mapping, str(self.table.path))
                judged = True
            yield batch
        if not judged:
            raise DataError(f"{self.table.path} holds no rows")

    def _read(self, rows: Rows, mapping: Mapping[str, str]) -> tuple[ListenBatch, list[Broken]]:
        refusals = Refusals(rows)
        columns = CheckedColumns(rows, mapping, refusals)
        title, artist, album = (columns.texts(name) for name in ("title", "artist", "album"))
        track = columns.track(artist, title)
        said = {"title": title.strings(), "artist": artist.strings(), "album": album.strings()}
        said["released_on"] = _released_on(columns)
        said["duration_ms"] = columns.milliseconds("duration", self._unit)
        said["tags"] = _tags(columns, self._tags_separator)
        said |= {name: _audio(columns, name) for name in AUDIO_FEATURES}
        chosen = pa.array(refusals.kept)
        said = {name: values.filter(chosen) for name, values in said.items()}
        tracks = track_table(track.kept(refusals.kept), said)
        refused = refusals.in_order()
        rejected = reject_table(refused)
        listens = LISTEN.empty_table()
        return ListenBatch(listens, tracks, rejected, rows.bytes_read, rows.last_line), refused


def _audio(columns: CheckedColumns, name: str) -> pa.Array:
    found = columns.numbers(name)
    if name not in _UNBOUNDED:
        columns.refuse(name, (found < 0) | (found > 1), "is outside 0..1")
    if name == "tempo":
        columns.refuse(name, found < 0, "is negative")
    return pa.array(found.astype(np.float32), mask=np.isnan(found))


def _released_on(columns: CheckedColumns) -> pa.Array:
    if "released_on" not in columns:
        return pa.nulls(columns.num_rows, pa.date32())
    stored = columns.stored("released_on")
    if pa.types.is_timestamp(stored.type) or pa.types.is_date(stored.type):
        return stored.combine_chunks().cast(pa.date32(), safe=False)
    texts = columns.texts("released_on")
    days = [_day(value) for value in texts.values.to_pylist()]
    pairs = zip(days, texts.values.to_pylist(), strict=True)
    odd = [day is None and value not in _NO_DATE for day, value in pairs]
    columns.refuse("released_on", texts.where(pa.array(odd, pa.bool_())), "is no date or year")
    return pa.array(days, pa.date32()).take(pa.array(texts.codes, mask=texts.missing))


def _day(text: str) -> date | None:
    """The day a text names, the first one of its month or year if it names no day."""
    match = _DATE.fullmatch(text)
    if match is None:
        return None
    try:
        return date(*(int(part or 1) for part in match.groups()))
    except ValueError:
        return None


def _tags(columns: CheckedColumns, separator: str) -> pa.Array:
    """Lists of distinct tags in the file's order; an empty list is null."""
    kind = pa.list_(pa.string())
    if "tags" not in columns:
        return pa.nulls(columns.num_rows, kind)
    stored = columns.stored("tags")
    if pa.types.is_list(stored.type) or pa.types.is_large_list(stored.type):
        return stored.combine_chunks().cast(kind)
    texts = columns.texts("tags")
    split = [split_tags(value, separator) for value in texts.values.to_pylist()]
    return pa.array(split, kind).take(pa.array(texts.codes, mask=texts.missing))


def split_tags(text: str, separator: str) -> list[str] | None:
    """The distinct tags of a text, None if it has none."""
    tags = [tag.strip() for tag in text.split(separator)]
    return list(dict.fromkeys(tag for tag in tags if tag)) or None
