"""Any table of plays: CSV, TSV, JSON lines or Parquet, told which column is what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from musicrec.errors import ConfigError
from musicrec.interactions.schema import ListenBatch
from musicrec.sources.delimited import delimited_rows
from musicrec.sources.diagnosis import refuse_unreadable
from musicrec.sources.dialect import guess_dialect
from musicrec.sources.files import existing_file
from musicrec.sources.fingerprints import fingerprint
from musicrec.sources.listens import ListenColumns, Reading, Unit, listen_batches
from musicrec.sources.times import check_time_format


class TableSource:
    """Plays as rows of a table; ``configs/data/table.yaml`` says what each argument chooses."""

    name = "table"

    def __init__(
        self,
        path: str | Path,
        columns: ListenColumns,
        time: str = "iso",
        played_unit: Unit = "ms",
        duration_unit: Unit = "ms",
        user: str | None = None,
        separator: str | None = None,
        header: bool = True,
    ) -> None:
        self._path = Path(path)
        self._reading = Reading(
            columns=columns,
            time=check_time_format(time),
            played_unit=played_unit,
            duration_unit=duration_unit,
            user=user,
        )
        self._separator = separator
        self._header = header
        self.timed = time != "order"

    def batches(self) -> Iterator[ListenBatch]:
        path = existing_file(self._path)
        refuse_unreadable(path)
        types = self._reading.columns.text_types()
        dialect = guess_dialect(path, list(types), self._separator, self._header)
        yield from listen_batches(delimited_rows(path, dialect, types), self._reading, str(path))

    def total_bytes(self) -> int:
        return existing_file(self._path).stat().st_size

    def fingerprint(self) -> str:
        settings = {**asdict(self._reading), "separator": self._separator, "header": self._header}
        return fingerprint(self.name, [existing_file(self._path)], settings)

    def describe(self) -> str:
        return str(self._path)
