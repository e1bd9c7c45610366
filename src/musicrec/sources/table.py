"""Any table of plays: CSV, TSV, JSON lines or Parquet, told which column is what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain
from pathlib import Path

from musicrec.errors import ConfigError
from musicrec.interactions.schema import ListenBatch
from musicrec.sources.reading.columns import Unit, check_unit
from musicrec.sources.reading.fingerprints import fingerprint
from musicrec.sources.reading.listens import ListenColumns, Reading, listen_batches
from musicrec.sources.reading.parts import Part, in_sequence
from musicrec.sources.reading.tabular import TableFile
from musicrec.sources.reading.times import check_time_format
from musicrec.sources.reading.tracks import TrackFile


class TableSource:
    """Plays as rows of a table; ``configs/data/table.yaml`` documents the arguments."""

    name = "table"

    def __init__(
        self,
        path: str | Path,
        columns: ListenColumns,
        time: str = "iso",
        played_unit: Unit = "ms",
        duration_unit: Unit = "ms",
        user: str | int | None = None,
        separator: str | None = None,
        header: bool = True,
        quoting: bool = True,
        encoding: str = "utf-8",
        tracks: TrackFile | None = None,
    ) -> None:
        check_unit("data.played_unit", played_unit)
        check_unit("data.duration_unit", duration_unit)
        self._reading = Reading(
            columns=columns,
            time=check_time_format(time),
            played_unit=played_unit,
            duration_unit=duration_unit,
            user=None if user is None else str(user),
        )
        _check_mapping(self._reading)
        self._table = TableFile(Path(path), separator, header, quoting, encoding)
        self._tracks = tracks if tracks is not None and tracks.given else None
        self.timed = time != "order"

    def batches(self) -> Iterator[ListenBatch]:
        plays = listen_batches(
            self._table.rows(self._reading.columns.text_types()),
            self._reading,
            str(self._table.path),
        )
        if self._tracks is None:
            yield from plays
            return
        # A bad track file is found now, not after the plays have been stored.
        about = self._tracks.batches()
        tracks: Part = (str(self._tracks.table.path), chain([next(about)], about))
        yield from in_sequence([(None, plays), tracks])

    def total_bytes(self) -> int:
        return sum(file.stat().st_size for file in self._files())

    def fingerprint(self) -> str:
        settings = {
            "reading": asdict(self._reading),
            "table": self._table.settings(),
            "tracks": self._tracks and self._tracks.settings(),
        }
        return fingerprint(self.name, self._files(), settings)

    def describe(self) -> str:
        return str(self._table.path)

    def _files(self) -> list[Path]:
        tracks = [] if self._tracks is None else [self._tracks.table.existing()]
        return [self._table.existing(), *tracks]


def _check_mapping(reading: Reading) -> None:
    """ConfigError for a mapping that can give no listen."""
    mapping = reading.columns.mapping()
    if "user" not in mapping and reading.user is None:
        raise ConfigError(
            "data.columns.user is not set: name the column of listeners, or data.user=NAME "
            "where one person made every row"
        )
    if "item" not in mapping and not {"artist", "title"} <= mapping.keys():
        raise ConfigError(
            "data.columns.item is not set: name the column of track ids, or both "
            "data.columns.artist and data.columns.title"
        )
    if "time" not in mapping and reading.time != "order":
        raise ConfigError(
            "data.columns.time is not set: name the column of times, or data.time=order where "
            "the order of the lines is all that is known"
        )
