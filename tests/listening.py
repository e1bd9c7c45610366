"""Small histories for the tests of interest graphs, without a database."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from musicrec.graph.condense import condense
from musicrec.graph.digest import Summary
from musicrec.graph.history import History, Track, track_of

START = datetime(2024, 3, 4, 18, tzinfo=UTC)  # a Monday evening


@dataclass(frozen=True)
class Song:
    """A track and the days on which it is played, one after another within a sitting."""

    track_id: str
    title: str | None = None
    artist: str | None = None
    tags: Sequence[str] = ()
    year: int | None = None
    days: Sequence[int] = (0,)
    skipped: Sequence[int] = ()
    album: str | None = None
    hours: int = 0
    """After ``START``'s own hour."""


def history_of(songs: Iterable[Song]) -> tuple[History, dict[int, Track]]:
    """Plays of all songs, three minutes apart within a day, in the order of the songs."""
    songs = list(songs)
    plays = [
        (
            START + timedelta(days=day, minutes=3 * place, hours=song.hours),
            place,
            day in song.skipped,
        )
        for place, song in enumerate(songs)
        for day in song.days
    ]
    plays.sort()
    seconds = np.array([int(at.timestamp()) for at, _, _ in plays], dtype=np.int64)
    tracks = {
        place: track_of(s.track_id, s.title, s.artist, s.album, s.year, list(s.tags))
        for place, s in enumerate(songs)
    }
    history = History(
        track=np.array([place for _, place, _ in plays], dtype=np.int64),
        at=seconds * 1_000_000,
        hour=seconds // 3600,
        skipped=np.array([skip for _, _, skip in plays], dtype=np.int64),
        moving=np.zeros(len(plays), dtype=np.int64),
    )
    return history, tracks


def summary_of(*songs: Song, max_tokens: int = 3000) -> Summary:
    """The summary of these songs' plays."""
    history, tracks = history_of(songs)
    return condense(history, tracks, zone="UTC", max_tokens=max_tokens)


#: Trip hop of old, techno of late, and one song that is always skipped.
LISTENER = (
    Song("t1", "Glory Box", "Portishead", ("Trip-Hop", "90s", "melancholic"), 1994, (0, 9, 20, 70)),
    Song("t2", "Teardrop", "Massive Attack", ("trip hop", "dreamy"), 1998, (0, 9, 20, 21)),
    Song("t3", "Roads", "Portishead", ("trip hop", "sad", "seen live"), 1994, (0, 20, 21)),
    Song("t4", "Spastik", "Plastikman", ("techno", "electronic"), 1993, (66, 68, 70), hours=4),
    Song("t5", "Minus", "Robert Hood", ("techno", "electronic"), 1994, (66, 68, 70), hours=4),
    Song("t6", "Jingle", "Radio Ad", ("pop",), 2024, (0, 9, 20, 66, 70), (0, 9, 20, 66, 70)),
    Song("t7", "Untitled", None, (), None, (70,)),
)
