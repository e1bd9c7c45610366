"""What a run tells of itself, line by line in its own folder, before anybody else hears of it.

A line of ``tracking.jsonl`` is one JSON object with its ``kind`` and, in milliseconds, its
``time``::

    start     key, experiment, name, tags, params     a run begins; its key is the same everywhere
    metrics   step, values                            numbers; those that JSON lacks are text
    tags      tags
    data      name, digest, role                      what it was trained on
    artifact  path, folder                            a file, from the run folder's point of view
    end       status                                  FINISHED, FAILED or KILLED
    resume    changed                                 it goes on; settings that differ from before

Lines are only ever appended. A run that starts anew in the same folder begins with another
``start``; the last one is the folder's run.
"""

from __future__ import annotations

import json
import math
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from musicrec.errors import TrackingError

JOURNAL = "tracking.jsonl"

Entry = dict[str, Any]
Status = Literal["FINISHED", "FAILED", "KILLED"]


@dataclass
class Told:
    """What a journal tells of its last run.

    Attributes:
        start: its first line; None where there is none.
        ended: the status, unless it went on afterwards.
        curves: ``(step, value)`` of every metric in the order told.
    """

    start: Entry | None = None
    ended: Status | None = None
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)

    def last_step(self, metric: str) -> int:
        """-1 before the first."""
        return max((step for step, _ in self.curves.get(metric, ())), default=-1)


class Journal:
    """A run's journal, to write to. Half a line that a kill has left is cut off first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / JOURNAL
        _cut_half_line(self.path)
        self.told = told(self.path)
        self._file = self.path.open("a", encoding="utf-8")

    def begin(
        self,
        *,
        experiment: str,
        name: str,
        tags: Mapping[str, str],
        params: Mapping[str, Any],
        is_resumed: bool,
    ) -> None:
        """Start a run, or go on with the folder's own if it is resumed and was told of."""
        start = self.told.start
        if is_resumed and start is not None:
            changed = {k: v for k, v in params.items() if start["params"].get(k) != v}
            self._write("resume", changed=changed)
            return
        self.told = Told()
        self._write(
            "start",
            key=uuid.uuid4().hex,
            experiment=experiment,
            name=name,
            tags=dict(tags),
            params=dict(params),
        )

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        plain = {key: _plain(float(value)) for key, value in values.items()}
        self._write("metrics", step=step, values=plain)

    def tags(self, tags: Mapping[str, str]) -> None:
        self._write("tags", tags=dict(tags))

    def data(self, name: str, digest: str, role: str) -> None:
        self._write("data", name=name, digest=digest, role=role)

    def artifact(self, path: Path, folder: str = "") -> None:
        """A file below the run folder, to be filed under ``folder`` of the run's artifacts."""
        self._write("artifact", path=path.relative_to(self.folder).as_posix(), folder=folder)

    def end(self, status: Status) -> None:
        self._write("end", status=status)

    def close(self) -> None:
        self._file.close()

    def _write(self, kind: str, **content: Any) -> None:
        line = {"kind": kind, "time": time.time_ns() // 1_000_000, **content}
        self._file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
        self._file.flush()  # a kill of this process loses nothing that was told


def entries(path: Path, offset: int = 0) -> Iterator[tuple[Entry, int]]:
    """The whole lines from a byte on, each with the byte at which it ends.

    Raises:
        TrackingError: a line is no journal's.
    """
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):  # it is being written
                return
            offset += len(line)
            try:
                entry = json.loads(line)
                entry["kind"], entry["time"]
            except (ValueError, TypeError, KeyError) as error:
                raise TrackingError(
                    f"{path}: the line that ends at byte {offset} is damaged; take it out, then "
                    "try again"
                ) from error
            yield entry, offset


def told(path: Path) -> Told:
    """What a journal tells of its last run; nothing where there is none."""
    so_far = Told()
    for entry, _ in entries(path) if path.exists() else ():
        if entry["kind"] == "start":
            so_far = Told(start=entry)
        elif entry["kind"] == "metrics":
            for name, value in entry["values"].items():
                so_far.curves.setdefault(name, []).append((entry["step"], float(value)))
        elif entry["kind"] in ("end", "resume"):
            so_far.ended = entry.get("status")
    return so_far


def _plain(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def _cut_half_line(path: Path) -> None:
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)
