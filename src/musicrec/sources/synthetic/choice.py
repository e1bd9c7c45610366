"""How the next track of a session is chosen: one small class for each way of listening.

At every moment each track of the catalogue has a weight, a sum of two parts: the *path* the
session follows (its ``Way``) offers a few tracks, the *whim* any released one. The weights are
integers and the draw is exact, so they are the true distribution, not an estimate.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

import numpy as np

from musicrec.sources.synthetic.listeners import Listener, Way
from musicrec.sources.synthetic.tracks import Ints, Tracks

#: Path and whim share 256 units; a unit is so large that its division loses nothing visible.
SHARES, UNIT = 256, 1 << 36
#: Weight of the short list's tracks, the one longest unheard first.
ROTATION_AGES = np.array([128, 64, 32, 16, 8, 4, 2])
#: So many plays lie between two of the same hit.
BREATHER = 3

#: Rows of the catalogue, each once, and their weights on the path.
Offer = tuple[Ints, Ints]


class Path(Protocol):
    """One session's way of going on."""

    def offer(self) -> Offer:
        """What may come next; weights that are all 0 offer nothing."""
        ...

    def hear(self, track: int) -> None:
        """A track was played, on the path or off it."""
        ...


def offer_of(weights: Ints) -> Offer:
    """The tracks of positive weight."""
    rows = weights.nonzero()[0]
    return rows, weights[rows]


class AlbumPath:
    """An album in its order; a whim in between is no reason to stop.

    After the last track another album begins, as ``opening`` says.
    """

    def __init__(self, tracks: Tracks, opening: Offer) -> None:
        self._following = tracks.following
        self._opening = opening
        self._next = -1

    def offer(self) -> Offer:
        if self._next < 0:
            return self._opening
        return np.array([self._next]), np.array([1])

    def hear(self, track: int) -> None:
        if self._next in (-1, track):
            self._next = int(self._following[track])


class RotationPath:
    """The listener's own short list: the track longest unheard comes most likely.

    ``rotation`` is the listener's list, longest unheard first; it is kept in that order.
    """

    def __init__(self, rotation: list[int]) -> None:
        self._rotation = rotation

    def offer(self) -> Offer:
        return np.array(self._rotation, dtype=np.int64), ROTATION_AGES[: len(self._rotation)]

    def hear(self, track: int) -> None:
        if track in self._rotation:
            self._rotation.remove(track)
            self._rotation.append(track)


class RadioPath:
    """Hits, none of the last ``BREATHER`` plays again."""

    def __init__(self, hits: Offer) -> None:
        self._rows, self._hits = hits
        self._place = dict(zip(self._rows.tolist(), range(len(self._rows)), strict=True))
        self._recent: deque[int] = deque(maxlen=BREATHER)

    def offer(self) -> Offer:
        weights = self._hits.copy()
        for track in self._recent:
            if track in self._place:
                weights[self._place[track]] = 0
        return self._rows, weights

    def hear(self, track: int) -> None:
        self._recent.append(track)


class TurnsPath:
    """Two people at one player, each with the hits of a style, in turns.

    Whoever's turn it is when a whim strikes has lost the turn, nothing else.
    """

    def __init__(self, host: Offer, guest: Offer) -> None:
        self._mine, self._theirs = RadioPath(host), RadioPath(guest)

    def offer(self) -> Offer:
        return self._mine.offer()

    def hear(self, track: int) -> None:
        self._mine.hear(track)
        self._mine, self._theirs = self._theirs, self._mine


class WanderPath:
    """From the artist just heard to a similar one; begins like a radio."""

    def __init__(self, tracks: Tracks, beginning: Offer, anywhere: Ints) -> None:
        self._tracks = tracks
        self._anywhere = anywhere
        self._here = beginning

    def offer(self) -> Offer:
        return self._here

    def hear(self, track: int) -> None:
        artist = self._tracks.artist
        self._here = offer_of(self._anywhere * self._tracks.near[artist[track]][artist])


class Choice:
    """The next-track weights through one session.

    Args:
        popularity: ``(tracks,)`` of the day; 0 for tracks not out yet, which are never chosen.
        taste: ``(styles,)`` the listener's, of the day.
        styles: the session's, and the guest's where two take turns.
        rotation: the listener's short list, changed in place.
    """

    def __init__(
        self,
        tracks: Tracks,
        listener: Listener,
        popularity: Ints,
        taste: Ints,
        *,
        way: Way,
        styles: tuple[int, int],
        mood: int,
        rotation: list[int],
    ) -> None:
        affinity = listener.affinity[tracks.artist]
        liked = popularity * affinity
        self._path = _path(tracks, liked, affinity, way, styles, mood, rotation)
        self._path_mass = (SHARES - listener.whim) * UNIT
        whim = liked * (1 + taste[tracks.style]) + (popularity > 0)
        self._whim = whim * (listener.whim * UNIT // int(whim.sum()))
        self._whim_edges = self._whim.cumsum()
        self._whim_total = int(self._whim_edges[-1])
        self._consider()

    def weights(self) -> Ints:
        """``(tracks,)`` of the next play; proportional to its true probability."""
        weights = self._whim.copy()
        weights[self._rows] += self._offered * self._scale
        return weights

    def draw(self, chance: float) -> int:
        """The track that ``chance``, uniform in [0, 1), falls on; distributed as ``weights``.

        Path and whim are laid end to end instead of added up, which comes to the same.
        """
        on_path = self._total * self._scale
        place = int(chance * (on_path + self._whim_total))
        if place < on_path:
            edges = self._offered.cumsum()
            return int(self._rows[edges.searchsorted(place // self._scale, side="right")])
        return int(self._whim_edges.searchsorted(place - on_path, side="right"))

    def hear(self, track: int) -> None:
        """Tell the session what was played."""
        self._path.hear(track)
        self._consider()

    def _consider(self) -> None:
        """Scale what the path offers to its share; nothing offered leaves all to the whim."""
        self._rows, self._offered = self._path.offer()
        self._total = int(self._offered.sum())
        self._scale = self._path_mass // max(1, self._total)


def _path(
    tracks: Tracks,
    liked: Ints,
    affinity: Ints,
    way: Way,
    styles: tuple[int, int],
    mood: int,
    rotation: list[int],
) -> Path:
    in_style = tracks.style == styles[0]
    match way:
        case Way.ALBUM:
            return AlbumPath(tracks, offer_of(tracks.opening * affinity * (liked > 0) * in_style))
        case Way.TURNS:
            in_guest_style = tracks.style == styles[1]
            return TurnsPath(offer_of(liked * in_style), offer_of(liked * in_guest_style))
        case Way.ROTATION:
            return RotationPath(rotation)
        case Way.RADIO:
            return RadioPath(offer_of(liked * tracks.mood_fit[mood] * in_style))
        case Way.WANDER:
            hits = liked * tracks.mood_fit[mood]
            return WanderPath(tracks, offer_of(hits * in_style), hits)
