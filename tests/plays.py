"""Small listening histories for the tests of features, and every feature in plain Python.

The functions below are a second opinion: they share no code and no SQL with ``views``, only what
``docs/features.md`` says of each feature.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import insert, text

from musicrec.database.engine import Dataset
from musicrec.database.tables import Interaction, Track, User

DAY = timedelta(days=1)

Attributes = dict[str, Any]  # of a track: columns of the table ``tracks``


@dataclass(frozen=True)
class Play:
    """One play by outside ids; ``tie`` is its place among the user's plays of the same time."""

    user: str
    track: str
    at: datetime
    ms: int | None = None
    skipped: bool | None = None
    device: str | None = None
    tie: int = 0


def store(dataset: Dataset, plays: Iterable[Play], tracks: dict[str, Attributes]) -> None:
    """Make ``plays`` and ``tracks`` all that the dataset holds."""
    plays = list(plays)
    users = {user: key for key, user in enumerate(sorted({p.user for p in plays}), start=100)}
    keys = {track: key for key, track in enumerate(sorted(tracks, reverse=True), start=7)}
    with dataset.engine.begin() as connection:
        for table in ("interactions", "users", "tracks"):
            connection.execute(text(f"DELETE FROM {table}"))
        connection.execute(text("UPDATE dataset_info SET timed = true"))
        for track, attributes in tracks.items():
            row = {"track_key": keys[track], "track_id": track, **attributes}
            connection.execute(insert(Track).values(row))
        if plays:
            connection.execute(
                insert(User), [{"user_key": key, "user_id": user} for user, key in users.items()]
            )
            connection.execute(
                insert(Interaction),
                [
                    {
                        "user_key": users[p.user],
                        "occurred_at": p.at,
                        "track_key": keys[p.track],
                        "tie": p.tie,
                        "ms_played": p.ms,
                        "skipped": p.skipped,
                        "device": p.device,
                        "source": "test",
                    }
                    for p in plays
                ],
            )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _minutes(plays: Sequence[Play]) -> float | None:
    known = [p.ms for p in plays if p.ms is not None]
    return sum(known) / 60_000 if known else None


def _skip_share(plays: Sequence[Play]) -> float | None:
    return _mean(p.skipped for p in plays)


def _listening(plays: Sequence[Play], tracks: dict[str, Attributes], end: datetime) -> list[Any]:
    return [
        len(plays),
        len({p.at.timestamp() // 86_400 for p in plays}),
        len({p.track for p in plays}),
        len({tracks[p.track].get("artist") for p in plays} - {None}),
        _minutes(plays),
        _skip_share(plays),
    ]


TASTES = ("danceability", "energy", "valence", "tempo", "acousticness")


def _taste(plays: Sequence[Play], tracks: dict[str, Attributes], end: datetime) -> list[Any]:
    return [_mean(tracks[p.track].get(name) for p in plays) for name in TASTES]


def _popularity(plays: Sequence[Play], tracks: dict[str, Attributes], end: datetime) -> list[Any]:
    return [
        len(plays),
        len({p.user for p in plays}),
        sum(p.at >= end - DAY for p in plays),
        _skip_share(plays),
    ]


def _pair(plays: Sequence[Play], tracks: dict[str, Attributes], end: datetime) -> list[Any]:
    days = (end - max(p.at for p in plays)) / DAY if plays else None
    return [len(plays), _minutes(plays), _skip_share(plays), days]


#: view -> (ids of a play's entity, days of the window, features of an entity's plays)
Definition = tuple[
    Callable[[Play], tuple[str, ...]],
    int,
    Callable[[Sequence[Play], dict[str, Attributes], datetime], list[Any]],
]
WINDOWED: dict[str, Definition] = {
    "user_listening_stats": (lambda p: (p.user,), 7, _listening),
    "user_audio_preferences": (lambda p: (p.user,), 30, _taste),
    "track_popularity": (lambda p: (p.track,), 7, _popularity),
    "user_track_interactions": (lambda p: (p.user, p.track), 30, _pair),
}
AUDIO = (
    *("danceability", "energy", "valence", "tempo", "loudness"),
    *("acousticness", "instrumentalness", "speechiness"),
)


def expected_rows(
    view: str,
    plays: Sequence[Play],
    tracks: dict[str, Attributes],
    end: datetime,
    cadence: timedelta,
) -> dict[tuple[str, ...], list[float | None]]:
    """What the table of ``view`` holds for ``end``: ids to features, null as None."""
    if view == "track_audio_features":
        rows = {}
        for track, attributes in tracks.items():
            ms = attributes.get("duration_ms")
            minutes = None if ms is None else ms / 60_000
            rows[(track,)] = [*(attributes.get(name) for name in AUDIO), minutes]
        return rows
    entity, days, features = WINDOWED[view]
    start = end - days * DAY
    recent = {entity(p) for p in plays if start - cadence <= p.at < end}
    return {
        ids: features([p for p in plays if entity(p) == ids and start <= p.at < end], tracks, end)
        for ids in recent
    }
