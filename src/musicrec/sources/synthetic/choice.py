"""How the next track of a session is chosen: one small class for each way of listening.

At every moment the next track has a weight for each track of the catalogue, a sum of two parts:
the *path* the session follows (its ``Way``) and the *whim*, which may be any released track. The
weights are integers and the draw is exact, so they are the true distribution, not an estimate.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from musicrec.sources.synthetic.listeners import Listener, Way
from musicrec.sources.synthetic.tracks import Ints, Tracks

#: Path and whim share 256 units; a unit is large enough for its division to lose nothing visible.
SHARES, UNIT = 256, 1 << 36
#: Weight of the short list's tracks, the one longest unheard first.
ROTATION_AGES = np.array([128, 64, 32, 16, 8, 4, 2])


class Path(Protocol):
    """One session's way of going on."""

    def weights(self) -> Ints:
        """``(tracks,)`` weights of the next track; all 0 when the path has nothing to offer."""
        ...

    def hear(self, track: int) -> None:
        """A track was played, on the path or off it."""
        ...


class AlbumPath:
    """An album in its order; a whim in between is no reason to stop.

    After the last track another album begins. ``opening`` are the weights of beginning with each
    track.
    """

    def __init__(self, tracks: Tracks, opening: Ints) -> None:
        self._tracks = tracks
        self._opening = opening
        self._only_next = np.zeros_like(opening)
        self.next = -1

    def weights(self) -> Ints:
        if self.next < 0:
            return self._opening
        self._only_next[:] = 0
        self._only_next[self.next] = 1
        return self._only_next

    def hear(self, track: int) -> None:
        if self.next in (-1, track):
            self.next = int(self._tracks.following[track])


class TurnsPath:
    """Two people at one player, each with an album, track by track in turns.

    Whoever's turn it is when a whim strikes has lost the turn, not the place in the album.
    """

    def __init__(self, tracks: Tracks, opening: Ints) -> None:
        self._players = [AlbumPath(tracks, opening), AlbumPath(tracks, opening)]
        self._turn = 0

    def weights(self) -> Ints:
        return self._players[self._turn].weights()

    def hear(self, track: int) -> None:
        self._players[self._turn].hear(track)
        self._turn = 1 - self._turn


class RotationPath:
    """The listener's own short list: the track longest unheard comes most likely.

    ``rotation`` is the listener's list, longest unheard first; it is kept in that order.
    """

    def __init__(self, num_tracks: int, rotation: list[int]) -> None:
        self._weights = np.zeros(num_tracks, dtype=np.int64)
        self._rotation = rotation

    def weights(self) -> Ints:
        self._weights[self._rotation] = ROTATION_AGES[: len(self._rotation)]
        return self._weights

    def hear(self, track: int) -> None:
        if track in self._rotation:
            self._rotation.remove(track)
            self._rotation.append(track)


class RadioPath:
    """Hits of one style and mood, none twice."""

    def __init__(self, hits: Ints) -> None:
        self._left = hits

    def weights(self) -> Ints:
        return self._left

    def hear(self, track: int) -> None:
        self._left[track] = 0


class WanderPath:
    """From the artist just heard to a similar one, no track twice; begins like a radio."""

    def __init__(self, tracks: Tracks, beginning: Ints, anywhere: Ints) -> None:
        self._tracks = tracks
        self._beginning = beginning
        self._left = anywhere
        self._artist = -1

    def weights(self) -> Ints:
        if self._artist < 0:
            return self._beginning
        return self._left * self._tracks.near[self._artist]

    def hear(self, track: int) -> None:
        self._left[track] = 0
        self._artist = int(self._tracks.artist[track])


class Choice:
    """The next-track weights through one session.

    Args:
        popularity: ``(tracks,)`` of the day; 0 for tracks not out yet, which are never chosen.
        taste: ``(styles,)`` the listener's, of the day.
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
        style: int,
        mood: int,
        rotation: list[int],
    ) -> None:
        affinity = listener.affinity[tracks.artist]
        liked = popularity * affinity
        in_style = tracks.style == style
        whim = liked * (1 + taste[tracks.style]) + (popularity > 0)
        self._path_mass = (SHARES - listener.whim) * UNIT
        self._whim = spread(whim, listener.whim * UNIT)
        self._all_whim = whim * (SHARES * UNIT // int(whim.sum()))
        self._path: Path
        if way in (Way.ALBUM, Way.TURNS):
            opening = tracks.opening * affinity * (popularity > 0) * in_style
            self._path = (AlbumPath if way is Way.ALBUM else TurnsPath)(tracks, opening)
        elif way is Way.ROTATION:
            self._path = RotationPath(len(popularity), rotation)
        else:
            hits = liked * tracks.mood_fit[mood]
            in_style_hits = hits * in_style
            self._path = (
                RadioPath(in_style_hits)
                if way is Way.RADIO
                else WanderPath(tracks, in_style_hits, hits)
            )

    def weights(self) -> Ints:
        """``(tracks,)`` of the next play; proportional to its true probability."""
        path = self._path.weights()
        total = int(path.sum())
        if total == 0:  # the path has nothing left to offer: whim alone
            return self._all_whim
        return path * (self._path_mass // total) + self._whim

    def hear(self, track: int) -> None:
        """Tell the session what was played."""
        self._path.hear(track)


def spread(weights: Ints, mass: int) -> Ints:
    """``weights`` scaled to a sum just below ``mass``, in proportion to the last digit."""
    return weights * (mass // int(weights.sum()))
