"""Every feature's one definition: what Postgres computes, Redis serves and training joins.

A *view* is a group of features of the same entities. Its rows are computed at a cadence (daily
by default) from the plays of the window that ends there, and stamped with that end, exclusive: a
row of midnight holds nothing that was played at midnight. Whoever reads a row, in training or in
serving, sees the plays up to then and nothing of the hours since.

Where a view's entities played nothing in a window but did in the one before, they get a last row
that says so, so that what is served ends when the window does and not a time-to-live later.
Entities without plays have no row; every feature of a row that is not there is NaN.

All features are float32: a count is exact up to 2**24. A null of SQL is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

Entity = Literal["user", "track"]

#: Join keys, in Feast, Redis and every table of features: the outside ids, text.
JOIN_KEYS: dict[Entity, str] = {"user": "user_id", "track": "track_id"}

#: The stamp of what has no time, such as a track's audio: before every play, and after the
#: moment that Feast's Redis layout cannot tell from none.
ALWAYS = datetime(1970, 1, 2, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Feature:
    """One column of a view.

    Attributes:
        name: unique within its view.
        sql: in a windowed view an aggregate over ``play``, the window's plays with their tracks'
            columns, outer-joined: ``play`` is all null where there is none, so it must ignore
            nulls, as all but ``count(*)`` do. Otherwise an expression over ``track``. Also at
            hand: ``%(window_end)s``, the exclusive end; a ``%`` of its own is written ``%%``.
            It must not depend on the session's time zone: ``interval '24 hours'``, not a day.
        unit: of the value.
        meaning: what it says, without the window.
        null: when it is NaN although the row is there; None if never.
    """

    name: str
    sql: str
    unit: str
    meaning: str
    null: str | None = None


@dataclass(frozen=True, slots=True)
class View:
    """A group of features of the same entities; becomes a Feast feature view of the same name.

    Attributes:
        name: also the name of its table.
        entities: whose features they are.
        window: what its plays' times span; None for attributes that do not change, whose rows
            are stamped ``ALWAYS``.
        ttl: how long after its stamp a row may be served or trained on; None for ever.
        features: in the order of the columns.
        meaning: one line.
    """

    name: str
    entities: tuple[Entity, ...]
    window: timedelta | None
    ttl: timedelta | None
    features: tuple[Feature, ...]
    meaning: str

    @property
    def join_keys(self) -> tuple[str, ...]:
        return tuple(JOIN_KEYS[entity] for entity in self.entities)

    @property
    def columns(self) -> tuple[str, ...]:
        """The features' names across views, as Feast's ``full_feature_names`` has them."""
        return tuple(f"{self.name}__{feature.name}" for feature in self.features)


_NO_LENGTH = "no play of the window says how long it was heard"
_NO_SKIP = "no play of the window says whether it was skipped"
_NO_PLAY = "no play in the window"


def _skip_share(name: str) -> Feature:
    return Feature(
        name,
        "avg(play.skipped::int)",
        "0..1",
        "share of the plays known to be skipped or not that were skipped",
        _NO_SKIP,
    )


def _minutes(name: str) -> Feature:
    return Feature(name, "sum(play.ms_played) / 60000.0", "minutes", "time heard", _NO_LENGTH)


def _taste(name: str, column: str, unit: str) -> Feature:
    return Feature(
        name,
        f"avg(play.{column})",
        unit,
        f"mean {column} of what was played; a track played twice counts twice",
        f"no track played in the window has a known {column}",
    )


USER_LISTENING_STATS = View(
    "user_listening_stats",
    ("user",),
    window=timedelta(days=7),
    ttl=timedelta(days=7),
    meaning="how much, and how, a listener listened in the last week",
    features=(
        Feature("plays_7d", "count(play.track_key)", "plays", "plays"),
        Feature(
            "active_days_7d",
            "count(DISTINCT (play.occurred_at AT TIME ZONE 'UTC')::date)",
            "days",
            "UTC days with a play",
        ),
        Feature("tracks_7d", "count(DISTINCT play.track_key)", "tracks", "different tracks"),
        Feature(
            "artists_7d",
            "count(DISTINCT play.artist)",
            "artists",
            "different artists; a track without one does not count",
        ),
        _minutes("minutes_7d"),
        _skip_share("skip_share_7d"),
    ),
)

USER_AUDIO_PREFERENCES = View(
    "user_audio_preferences",
    ("user",),
    window=timedelta(days=30),
    ttl=timedelta(days=30),
    meaning="what the music a listener played in the last 30 days sounds like",
    features=(
        _taste("danceability_30d", "danceability", "0..1"),
        _taste("energy_30d", "energy", "0..1"),
        _taste("valence_30d", "valence", "0 sad .. 1 happy"),
        _taste("tempo_30d", "tempo", "beats per minute"),
        _taste("acousticness_30d", "acousticness", "0..1"),
    ),
)


def _attribute(name: str, unit: str) -> Feature:
    return Feature(name, f"track.{name}", unit, f"the track's {name}", "not known of the track")


TRACK_AUDIO_FEATURES = View(
    "track_audio_features",
    ("track",),
    window=None,
    ttl=None,
    meaning="what a track sounds like; an attribute of the track, the same at all times",
    features=(
        _attribute("danceability", "0..1"),
        _attribute("energy", "0..1"),
        _attribute("valence", "0 sad .. 1 happy"),
        _attribute("tempo", "beats per minute"),
        _attribute("loudness", "dBFS"),
        _attribute("acousticness", "0..1"),
        _attribute("instrumentalness", "0..1"),
        _attribute("speechiness", "0..1"),
        Feature(
            "minutes",
            "track.duration_ms / 60000.0",
            "minutes",
            "the track's length",
            "not known of the track",
        ),
    ),
)

TRACK_POPULARITY = View(
    "track_popularity",
    ("track",),
    window=timedelta(days=7),
    ttl=timedelta(days=7),
    meaning="how much a track was played in the last week, by everyone",
    features=(
        Feature("plays_7d", "count(play.track_key)", "plays", "plays"),
        Feature("listeners_7d", "count(DISTINCT play.user_key)", "listeners", "different users"),
        Feature(
            "plays_1d",
            "count(play.track_key) FILTER"
            " (WHERE play.occurred_at >= %(window_end)s - interval '24 hours')",
            "plays",
            "plays in the last of the seven days",
        ),
        _skip_share("skip_share_7d"),
    ),
)

USER_TRACK_INTERACTIONS = View(
    "user_track_interactions",
    ("user", "track"),
    window=timedelta(days=30),
    ttl=timedelta(days=30),
    meaning="what there was between a listener and a track in the last 30 days",
    features=(
        Feature("plays_30d", "count(play.track_key)", "plays", "plays"),
        _minutes("minutes_30d"),
        _skip_share("skip_share_30d"),
        Feature(
            "days_since_play",
            "extract(epoch FROM %(window_end)s - max(play.occurred_at)) / 86400.0",
            "days",
            "from the latest play to the end of the window",
            _NO_PLAY,
        ),
    ),
)

#: All views whose rows are stored, in the order of the columns of a feature matrix.
STORED = (
    USER_LISTENING_STATS,
    USER_AUDIO_PREFERENCES,
    TRACK_AUDIO_FEATURES,
    TRACK_POPULARITY,
    USER_TRACK_INTERACTIONS,
)

BY_NAME = {view.name: view for view in STORED}
