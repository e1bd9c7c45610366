"""Spotify's streaming history, extended or account data: JSON arrays in a folder or a zip.

Extended (``Streaming_History_Audio_*.json``, ``endsong_*.json``): ``ts`` is the *end* of the
play, so it began ``ms_played`` earlier. Account data (``StreamingHistory*.json``): ``endTime`` to
the minute, names only. Podcasts, audiobooks and videos are no plays of a track and are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from musicrec.interactions.schema import ListenBatch
from musicrec.sources.reading.alternatives import first_of_each
from musicrec.sources.reading.exports import export_files
from musicrec.sources.reading.files import Stored, stored_size
from musicrec.sources.reading.fingerprints import fingerprint
from musicrec.sources.reading.listens import ListenColumns, Reading, listen_batches
from musicrec.sources.reading.objects import first_objects, object_rows, types_of
from musicrec.sources.reading.parts import in_sequence
from musicrec.sources.reading.rows import Rows
from musicrec.sources.reading.values import Texts

EXTENDED = ("Streaming_History_Audio_*.json", "endsong_*.json")
ACCOUNT_DATA = ("StreamingHistory[0-9]*.json", "StreamingHistory_music_*.json")

#: Meaning → the keys that hold it, in the extended history and in account data.
_KEYS = {
    "user": ("username",),
    "item": ("spotify_track_uri",),
    "time": ("ts", "endTime"),
    "title": ("master_metadata_track_name", "trackName"),
    "artist": ("master_metadata_album_artist_name", "artistName"),
    "album": ("master_metadata_album_album_name",),
    "ms_played": ("ms_played", "msPlayed"),
    "skipped": ("skipped",),
    "device": ("platform",),
}
#: What a row has that is no track.
_OTHER = {"other": ("episode_name", "spotify_episode_uri", "audiobook_title", "audiobook_uri")}

_TRACK = "spotify:track:"


class SpotifySource:
    """One person's export; ``configs/data/spotify.yaml`` documents the arguments."""

    name = "spotify"
    timed = True

    def __init__(self, path: str | Path, user: str | int | None = None) -> None:
        self._path = Path(path)
        self._user = None if user is None else str(user)
        self._reading = Reading(
            columns=ListenColumns(**{meaning: meaning for meaning in _KEYS}),
            time="iso",
            user=self._user,
            time_is_end=True,
        )

    def batches(self) -> Iterator[ListenBatch]:
        return in_sequence((str(file), self._file_batches(file)) for file in self._files())

    def _file_batches(self, file: Stored) -> Iterator[ListenBatch]:
        keys = _KEYS | _OTHER
        types = types_of(first_objects(file), [key for each in keys.values() for key in each])
        rows = (_plays(first_of_each(rows, keys)) for rows in object_rows(file, types))
        return listen_batches(rows, self._reading, str(file))

    def total_bytes(self) -> int:
        return sum(stored_size(file) for file in self._files())

    def fingerprint(self) -> str:
        return fingerprint(self.name, self._files(), {"user": self._user})

    def describe(self) -> str:
        return str(self._path)

    def _files(self) -> list[Stored]:
        # Both kinds may lie side by side; they tell of the same plays, the first with ids.
        return export_files(self._path, EXTENDED, ACCOUNT_DATA)


def _plays(rows: Rows) -> Rows:
    """The rows that are plays of a track, with the bare id of the track.

    A local file's address is no id that another listener could share; artist and title are.
    """
    item, title = Texts.of(rows.columns["item"]), Texts.of(rows.columns["title"])
    is_track = ~(item.missing & title.missing & ~Texts.of(rows.columns["other"]).missing)
    bare = item.mapped(lambda uri: uri.removeprefix(_TRACK) if uri.startswith(_TRACK) else "")
    place = rows.columns.schema.get_field_index("item")
    columns = rows.columns.set_column(place, "item", bare.strings())
    return replace(rows, columns=columns).chosen(np.asarray(is_track))
