"""Invented, pronounceable names: no artist, album or track of a synthetic world exists."""

from __future__ import annotations

import numpy as np

# fmt: off
ONSETS = (
    "b", "br", "d", "dr", "f", "fl", "g", "gl", "h", "j", "k", "kr", "l", "m", "n", "p", "pl", "r",
    "s", "sk", "sl", "st", "t", "th", "tr", "v", "vr", "w", "y", "z", "zh",
)
# fmt: on
#: Plain vowels twice, so that they come twice as often as the others.
VOWELS = (*"aeiou", *"aeiou", "ai", "ei", "ia", "io", "ou")
CODAS = ("", "", "", "l", "m", "n", "r", "s", "th", "nd", "x")

#: How a name is put together: syllables of each word.
ARTIST_SHAPES = ((3,), (4,), (3, 2), (2, 3), (3, 3))
ALBUM_SHAPES = ((3,), (2, 3), (3, 2), (4,), (2, 2, 3))
TITLE_SHAPES = ((3,), (2, 2), (4,), (3, 2), (2, 3), (2, 2, 2))


class Namer:
    """Draws names from one stream and never gives the same name twice."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._given: set[str] = set()

    def name(self, shapes: tuple[tuple[int, ...], ...]) -> str:
        """A name of one of ``shapes``; drawn anew while it has been given before."""
        while True:
            shape = shapes[int(self._rng.random() * len(shapes))]
            name = " ".join(self._word(syllables) for syllables in shape)
            if name not in self._given:
                self._given.add(name)
                return name

    def _word(self, syllables: int) -> str:
        draws = self._rng.random((syllables, 2)).tolist()
        parts = [ONSETS[int(o * len(ONSETS))] + VOWELS[int(v * len(VOWELS))] for o, v in draws]
        coda = CODAS[int(self._rng.random() * len(CODAS))]
        return ("".join(parts) + coda).capitalize()
