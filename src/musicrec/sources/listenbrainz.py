"""ListenBrainz listens: the public dump, a user's export, or what its API answers.

Dump: JSON lines with ``user_id``, ``timestamp``, ``recording_msid``. Export (a zip of
``user.json`` and ``listens/YEAR/MONTH.jsonl``): JSON lines with ``listened_at`` and without a
user. Either way the rest is ``track_metadata``; what clients put into its ``additional_info`` is
free text, so a duration there that is none is left out rather than held against the listen.

A track's id is the MusicBrainz recording ListenBrainz mapped it to, else the one the client named,
else the MessyBrainz id of the spelling.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa

from musicrec.interactions.schema import ListenBatch
from musicrec.sources.reading.alternatives import first_of_each
from musicrec.sources.reading.columns import LARGEST_MS
from musicrec.sources.reading.exports import everything_inside, export_files
from musicrec.sources.reading.files import Stored, open_stored, stored_size
from musicrec.sources.reading.fingerprints import fingerprint
from musicrec.sources.reading.listens import ListenColumns, Reading, listen_batches
from musicrec.sources.reading.objects import first_objects, object_rows, types_of
from musicrec.sources.reading.parts import in_sequence
from musicrec.sources.reading.rows import Rows
from musicrec.sources.reading.values import numbers

#: Listens inside a dump or an export; feedback and pinned recordings lie beside them.
FILES = ("[0-9]*.jsonl", "*.listens", "*listens*.jsonl", "*listens*.json")

_INFO = "track_metadata.additional_info"
#: Meaning → the paths that hold it, the best first.
_KEYS = {
    "user": ("user_id", "user_name"),
    "item": (
        "track_metadata.mbid_mapping.recording_mbid",
        f"{_INFO}.recording_mbid",
        "recording_msid",
        "track_metadata.recording_msid",
        f"{_INFO}.recording_msid",
    ),
    "time": ("listened_at", "timestamp"),
    "title": ("track_metadata.track_name",),
    "artist": ("track_metadata.artist_name",),
    "album": ("track_metadata.release_name",),
    "duration": (f"{_INFO}.duration_ms",),
    "device": (f"{_INFO}.media_player",),
}


class ListenBrainzSource:
    """A dump or an export; ``configs/data/listenbrainz.yaml`` documents the arguments."""

    name = "listenbrainz"
    timed = True

    def __init__(self, path: str | Path, user: str | int | None = None) -> None:
        self._path = Path(path)
        self._user = None if user is None else str(user)

    def batches(self) -> Iterator[ListenBatch]:
        reading = Reading(
            columns=ListenColumns(**{meaning: meaning for meaning in _KEYS}),
            time="unix_s",
            user=self._user or self._exporting_user(),
        )
        files = self._files()
        names = [None] if len(files) == 1 else [str(file) for file in files]
        batches = (_file_batches(file, reading) for file in files)
        return in_sequence(zip(names, batches, strict=True))

    def _exporting_user(self) -> str | None:
        """The user name an export keeps beside the listens."""
        for file in everything_inside(self._path):
            if PurePosixPath(file.name).name == "user.json":
                with open_stored(file) as stored:
                    return str(json.load(stored)["username"])
        return None

    def total_bytes(self) -> int:
        return sum(stored_size(file) for file in self._files())

    def fingerprint(self) -> str:
        user = self._user or self._exporting_user()
        return fingerprint(self.name, self._files(), {"user": user})

    def describe(self) -> str:
        return str(self._path)

    def _files(self) -> list[Stored]:
        return export_files(self._path, FILES)


def _file_batches(file: Stored, reading: Reading) -> Iterator[ListenBatch]:
    types = types_of(first_objects(file), [key for keys in _KEYS.values() for key in keys])
    rows = (_believable(first_of_each(rows, _KEYS)) for rows in object_rows(file, types))
    return listen_batches(rows, reading, str(file))


def _believable(rows: Rows) -> Rows:
    """The rows without durations that are none."""
    found, bad = numbers(rows.columns["duration"])
    unknown = bad | ~((found >= 0) & (found <= LARGEST_MS))
    place = rows.columns.schema.get_field_index("duration")
    known = pa.array(np.where(unknown, 0, found), mask=unknown)
    return replace(rows, columns=rows.columns.set_column(place, "duration", known))
