"""The listeners of a synthetic world: what each is like, before the first play.

Listener ``i`` is drawn from a stream of their own, so they are the same however many others
there are. All weights are integers; see ``tracks`` for why.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from musicrec.sources.synthetic.styles import MOODS
from musicrec.sources.synthetic.tracks import Ints, Tracks, style_weights


class Way(IntEnum):
    """How a session chooses its next track."""

    ALBUM = 0  # an album in its order
    TURNS = 1  # two styles, taking turns
    ROTATION = 2  # the listener's own short list, round and round
    RADIO = 3  # hits of one style and mood, each once
    WANDER = 4  # from artist to similar artist


#: How common each way is; a listener's own favourite way weighs ``FAVOURITE`` times as much.
WAY_WEIGHTS = np.array([2, 20, 3, 9, 2])
FAVOURITE = 6
#: Weight of the tracks of an artist a listener loves, against 1 for the others.
LOVED_ARTIST = 4
#: Weight of the three styles a listener is at home in.
HOME_STYLES = np.array([6, 3, 2])
DEVICES = ("phone", "desktop", "speaker", "car", "tv")
DAYPARTS = 4


@dataclass(frozen=True, slots=True)
class Listener:
    """The latent traits of one listener; none of them is written to the dataset.

    Attributes:
        taste_at_first, taste_at_last: ``(styles,)`` weights on the world's first and last day;
            in between they fade over.
        daypart_style: ``(dayparts,)`` the style asked for more often in that part of
            the day.
        affinity: ``(artists,)`` weight of each artist.
        moods: ``(moods,)`` weights.
        ways: ``(ways,)`` weights.
        whim: chance of a play off the session's path, in 256ths.
        rotation_size: number of tracks in the own short list.
        hours: ``(24,)`` weight of a session beginning in that local hour.
        utc_offset: hours east of Greenwich.
        devices: ``(2,)`` usual device at home and out.
        first_day, last_day: the days of joining and leaving.
        sessions: number of sessions in between.
    """

    taste_at_first: Ints
    taste_at_last: Ints
    daypart_style: Ints
    affinity: Ints
    moods: Ints
    ways: Ints
    whim: int
    rotation_size: int
    hours: Ints
    utc_offset: int
    devices: tuple[str, str]
    first_day: int
    last_day: int
    sessions: int


def pick(weights: Ints, draw: float) -> int:
    """The index that ``draw``, uniform in [0, 1), falls on. Exact for sums below 2**53."""
    edges = weights.cumsum()
    return int(edges.searchsorted(int(draw * int(edges[-1])), side="right"))


def pick_distinct(weights: Ints, draws: list[float]) -> list[int]:
    """As many different indices as there are draws, or as there are positive weights."""
    left, picked = weights.copy(), []
    for draw in draws:
        if not left.any():
            break
        picked.append(pick(left, draw))
        left[picked[-1]] = 0
    return picked


def make_listener(rng: np.random.Generator, tracks: Tracks, days: int) -> Listener:
    """One listener; the order of draws is frozen."""
    num_styles = int(tracks.style_of_artist.max()) + 1
    home = pick_distinct(style_weights(num_styles), rng.random(4).tolist())
    drift, daypart, chances = rng.random(), rng.random(DAYPARTS), rng.random(8).tolist()
    early, late = home[:3], home[:3]
    if drift < 0.5:
        late = [home[3], home[0], home[2]]
    ways = WAY_WEIGHTS.copy()
    ways[pick(WAY_WEIGHTS, chances[0])] *= FAVOURITE
    first_day, last_day = _stay(chances[1], chances[2], days)
    sessions = 1 + int(2.4 / math.sqrt(chances[3] + 0.04))
    return Listener(
        taste_at_first=_taste(early, num_styles),
        taste_at_last=_taste(late, num_styles),
        daypart_style=np.array(early)[(daypart * 3).astype(np.int64)],
        affinity=_affinity(rng, tracks, home),
        moods=1 + (rng.random(len(MOODS)) * 4).astype(np.int64),
        ways=ways,
        whim=8 + int(chances[4] * 20),
        rotation_size=4 + int(chances[5] * 4),
        hours=_hours(rng),
        utc_offset=int(chances[6] * 12) - 5,
        devices=(DEVICES[int(chances[7] * 5)], DEVICES[int(rng.random() * 5)]),
        first_day=first_day,
        last_day=last_day,
        sessions=sessions,
    )


def _stay(joining: float, leaving: float, days: int) -> tuple[int, int]:
    """First and last day: one listener in four is a newcomer, one in five leaves early."""
    first = int(joining * 4 * days * 0.6) if joining < 0.25 else 0
    last = days - 1 - (int(leaving * 5 * days * 0.3) if leaving < 0.2 else 0)
    return first, max(last, first)


def _taste(home: list[int], num_styles: int) -> Ints:
    taste = np.zeros(num_styles, dtype=np.int64)
    taste[home] = HOME_STYLES
    return taste


def _affinity(rng: np.random.Generator, tracks: Tracks, home: list[int]) -> Ints:
    """Two loved artists in each home style."""
    affinity = np.ones(len(tracks.style_of_artist), dtype=np.int64)
    for style in home:
        artists = np.flatnonzero(tracks.style_of_artist == style)
        loved = pick_distinct(np.ones(len(artists), dtype=np.int64), rng.random(2).tolist())
        affinity[artists[loved]] = LOVED_ARTIST
    return affinity


def _hours(rng: np.random.Generator) -> Ints:
    """``(24,)``: silent from one to six, a quiet day, and two peaks of the listener's own."""
    hours = np.full(24, 2)
    hours[1:6] = 0
    for peak in (6 + int(rng.random() * 8), 16 + int(rng.random() * 6)):
        hours[peak : peak + 3] += 8
    return hours
