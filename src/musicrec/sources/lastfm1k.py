"""Last.fm-1K: ``userid-timestamp-artid-artname-traid-traname.tsv`` (Celma 2010).

Tab separated, no header, quotes are plain characters, newest play first within a user. Some
lines of the published file are broken. The MusicBrainz track id is often empty; artist and title
make one then, so a track that has both kinds of lines counts twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from musicrec.interactions.schema import ListenBatch
from musicrec.sources.reading.delimited import delimited_rows
from musicrec.sources.reading.dialect import Dialect
from musicrec.sources.reading.listens import ListenColumns, Reading, listen_batches
from musicrec.sources.reading.one_file import OneTextFile

_DIALECT = Dialect(
    separator="\t",
    names=("userid", "timestamp", "artid", "artname", "traid", "traname"),
    header_lines=0,
    quoting=False,
)
_READING = Reading(
    columns=ListenColumns(
        user="userid", item="traid", time="timestamp", title="traname", artist="artname"
    ),
    time="iso",
)


class LastFM1KSource(OneTextFile):
    """The one file of plays of the Last.fm-1K dataset, as published, gzipped or not."""

    name = "lastfm1k"
    timed = True

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)

    def batches(self) -> Iterator[ListenBatch]:
        path = self._readable()
        rows = delimited_rows(path, _DIALECT, _READING.columns.text_types())
        return listen_batches(rows, _READING, str(path))
