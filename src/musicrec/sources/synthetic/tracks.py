"""The tracks of a synthetic world: artists, albums, releases, audio, popularity.

Everything that takes part in a draw is an integer, made with exact arithmetic from
``Generator.random``: two processors whose ``exp`` differs in the last bit get the same world.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from musicrec.interactions.schema import AUDIO_FEATURES, TRACK
from musicrec.sources.synthetic.names import ALBUM_SHAPES, ARTIST_SHAPES, TITLE_SHAPES, Namer
from musicrec.sources.synthetic.styles import MOODS, STYLES

Ints = NDArray[np.int64]

#: A new release is played this many times as much for so many days.
NEW_RELEASE_BOOST, NEW_RELEASE_DAYS = 2, 42
#: One album in so many comes out while the world is running.
FRESH_ALBUMS = 6
#: What ``Style.audio`` counts per unit of the table's column: thousandths if not said otherwise.
AUDIO_UNITS = {"tempo": 1, "loudness": 10}
#: A larger catalogue has more styles, until all are there; a listener needs five.
FEWEST_STYLES = 5
TRACKS_PER_STYLE = 125
#: Popularity of a style's greatest hit; the places of artist, album and track divide it.
FAME = 720_000
#: Weight of a track that suits a mood badly, so-so, well.
MOOD_FIT = np.array([1, 2, 4])


@dataclass(frozen=True, slots=True)
class Tracks:
    """The catalogue by column; row ``i`` is the track ``syn-{i:06d}``.

    Rows are shuffled: neither ids nor rows tell album, style, order or popularity.

    Attributes:
        style, artist, album: ``(tracks,)`` index of each.
        following: ``(tracks,)`` row of the album's next track, -1 after the last.
        opening: ``(tracks,)`` weight of beginning the album here.
        popularity: ``(tracks,)`` long-tailed weight.
        released: ``(tracks,)`` day of release, counted from the world's first; negative before.
        mood_fit: ``(moods, tracks)`` weight in a session of that mood.
        near: ``(artists, artists)`` 1 where the column's artist is similar to the row's.
        style_of_artist: ``(artists,)`` index.
        duration: ``(tracks,)`` milliseconds.
        metadata: rows of ``TRACK``.
    """

    style: Ints
    artist: Ints
    album: Ints
    following: Ints
    opening: Ints
    popularity: Ints
    released: Ints
    mood_fit: Ints
    near: Ints
    style_of_artist: Ints
    duration: Ints
    metadata: pa.Table

    def popularity_on(self, day: int) -> Ints:
        """``(tracks,)`` weights on a day: new releases are boosted, unreleased ones are 0."""
        age = day - self.released
        boost = np.where(age < NEW_RELEASE_DAYS, NEW_RELEASE_BOOST, 1)
        return self.popularity * boost * (age >= 0)


def make_tracks(rng: np.random.Generator, num_tracks: int, first_day: date, days: int) -> Tracks:
    """A catalogue of ``num_tracks``, drawn from ``rng`` alone; the order of draws is frozen."""
    discography = _discography(rng, num_tracks, first_day.year, days)
    style, artist, album, position, popularity, released = discography.T
    audio, duration = _audio(rng, style)
    shuffled = np.argsort(rng.random(num_tracks), kind="stable")
    row_of = np.argsort(shuffled, kind="stable")
    ends = np.append(album[1:] != album[:-1], True)
    style_of_artist = np.zeros(artist[-1] + 1, dtype=np.int64)
    style_of_artist[artist] = style
    return Tracks(
        style=style[shuffled],
        artist=artist[shuffled],
        album=album[shuffled],
        following=np.where(ends, -1, np.roll(row_of, -1))[shuffled],
        opening=_opening(position, popularity, album)[shuffled],
        popularity=popularity[shuffled],
        released=released[shuffled],
        mood_fit=_mood_fit(audio, style)[:, shuffled],
        near=_similar_artists(rng, style_of_artist),
        style_of_artist=style_of_artist,
        duration=duration[shuffled],
        metadata=_metadata(rng, discography, audio, duration, first_day, shuffled),
    )


def _discography(rng: np.random.Generator, num_tracks: int, year: int, days: int) -> Ints:
    """Rows ``(style, artist, album, position, popularity, released)``, album after album."""
    num_styles = min(len(STYLES), max(FEWEST_STYLES, num_tracks // TRACKS_PER_STYLE))
    rows: list[tuple[int, int, int, int, int, int]] = []
    artist = album = -1
    while len(rows) < num_tracks:
        artist += 1
        style, fame = artist % num_styles, FAME // (1 + artist // num_styles) ** 2
        for nth in range(1, 2 + int(rng.random() * 4)):
            album += 1
            released = _release_day(rng, year - STYLES[style].first_year, days)
            places = np.argsort(rng.random(7 + int(rng.random() * 6)), kind="stable").tolist()
            rows += [
                (style, artist, album, position, max(1, fame // (nth + nth * place) ** 2), released)
                for position, place in enumerate(places)
            ]
    return np.array(rows[:num_tracks], dtype=np.int64)


def _release_day(rng: np.random.Generator, years_before: int, days: int) -> int:
    """A day of release: within the world's run for one album in ``FRESH_ALBUMS``, else before."""
    fresh, when = rng.random(2).tolist()
    if int(fresh * FRESH_ALBUMS) == 0:
        return 1 + int(when * (days - 1))
    return -1 - int(when * years_before * 365)


def style_weights(num_styles: int) -> Ints:
    """``(styles,)``: how much the styles are loved, the first most."""
    return 24 // (4 + np.arange(num_styles))


def _opening(position: Ints, popularity: Ints, album: Ints) -> Ints:
    """A famous artist's album is begun more often; most begin with the first track."""
    fame = np.zeros(album[-1] + 1, dtype=np.int64)
    np.maximum.at(fame, album, popularity)
    return fame[album] * np.where(position == 0, 60, 1)


def _audio(rng: np.random.Generator, style: Ints) -> tuple[Ints, Ints]:
    """Features ``(tracks, 9)`` in the units of ``Style.audio``, and durations in milliseconds."""
    draws = rng.random((len(style), 10, 3))
    swing = (draws[..., 0] + draws[..., 1] + draws[..., 2]) / 1.5 - 1  # a bell within -1..1
    width = np.array([300, 320, 320, 34, 45, 300, 300, 90, 180])
    middle = np.array([s.audio for s in STYLES], dtype=np.int64)[style]
    audio = middle + np.floor(swing[:, :9] * width).astype(np.int64)
    for column, feature in enumerate(AUDIO_FEATURES):
        low, high = {"tempo": (50, 210), "loudness": (-600, 0)}.get(feature, (0, 1000))
        audio[:, column] = audio[:, column].clip(low, high)
    typical = np.array([s.seconds for s in STYLES], dtype=np.int64)[style] * 1000
    return audio, typical + np.floor(swing[:, 9] * typical * 0.5).astype(np.int64)


def _mood_fit(audio: Ints, style: Ints) -> Ints:
    """``(moods, tracks)``: how well a track suits each mood, as seen within its own style.

    Ranks within the style decide, so that every style has a third of its tracks in each class.
    """
    fit = np.empty((len(MOODS), len(style)), dtype=np.int64)
    for row, mood in enumerate(MOODS):
        score = np.zeros(len(style), dtype=np.int64)
        for feature, sign in mood.asks:
            score += sign * _rank_within(audio[:, AUDIO_FEATURES.index(feature)], style)
        third = _rank_within(score, style) * 3 // 1001
        fit[row] = MOOD_FIT[third]
    return fit


def _rank_within(values: Ints, groups: Ints) -> Ints:
    """Rank of each value within its group, in thousandths; ties by row."""
    ranks = np.empty_like(values)
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        order = np.argsort(np.argsort(values[rows], kind="stable"), kind="stable")
        ranks[rows] = order * 1000 // max(1, len(rows) - 1)
    return ranks


def _similar_artists(rng: np.random.Generator, style_of_artist: Ints) -> Ints:
    """``(artists, artists)`` 0/1: two similar ones of the same style, one from anywhere."""
    num_artists = len(style_of_artist)
    near = np.zeros((num_artists, num_artists), dtype=np.int64)
    draws = rng.random((num_artists, num_artists))
    for artist, style in enumerate(style_of_artist):
        order = np.argsort(draws[artist], kind="stable")
        order = order[order != artist]
        same = order[style_of_artist[order] == style][:2]
        others = order[style_of_artist[order] != style][:1]
        near[artist, np.concatenate([same, others])] = 1
    return near


def _tags(rng: np.random.Generator, style: int, audio: Ints, year: int) -> list[str]:
    """Style, genre and decade, each forgotten now and then, and what the audio says."""
    said = rng.random(3) < 0.9
    values = dict(zip(AUDIO_FEATURES, audio.tolist(), strict=True))
    claims = {
        STYLES[style].name: said[0],
        STYLES[style].genre: said[1],
        f"{year // 10 * 10}s": said[2],
        "energetic": values["energy"] >= 700,
        "calm": values["energy"] <= 300,
        "happy": values["valence"] >= 650,
        "melancholic": values["valence"] <= 300,
        "danceable": values["danceability"] >= 750,
        "acoustic": values["acousticness"] >= 700,
        "instrumental": values["instrumentalness"] >= 600,
    }
    return [tag for tag, claimed in claims.items() if claimed]


def _metadata(
    rng: np.random.Generator,
    discography: Ints,
    audio: Ints,
    duration: Ints,
    first_day: date,
    shuffled: Ints,
) -> pa.Table:
    """Rows of ``TRACK`` in shuffled order; names are drawn album after album."""
    namer = Namer(rng)
    artists: dict[int, str] = {}
    albums: dict[int, str] = {}
    columns: dict[str, list[object]] = {name: [] for name in TRACK.names}
    for row, (style, artist, album, _, _, released) in enumerate(discography.tolist()):
        released_on = first_day + timedelta(days=released)
        if artist not in artists:
            artists[artist] = namer.name(ARTIST_SHAPES)
        if album not in albums:
            albums[album] = namer.name(ALBUM_SHAPES)
        columns["title"].append(namer.name(TITLE_SHAPES))
        columns["artist"].append(artists[artist])
        columns["album"].append(albums[album])
        columns["released_on"].append(released_on)
        columns["tags"].append(_tags(rng, style, audio[row], released_on.year))
    columns["duration_ms"] = duration.tolist()
    for column, feature in enumerate(AUDIO_FEATURES):
        columns[feature] = (audio[:, column] / AUDIO_UNITS.get(feature, 1000)).tolist()
    rows = {name: [values[row] for row in shuffled] for name, values in columns.items() if values}
    rows["track_id"] = [track_id(row) for row in range(len(shuffled))]
    return pa.table({name: rows[name] for name in TRACK.names}, schema=TRACK)


def track_id(row: int) -> str:
    """The outside id of a row."""
    return f"syn-{row:06d}"
