"""The tracks a model can recommend, in the order of its item indices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Catalogue:
    """Outside ids, names and play counts; position ``i`` holds the track of item index ``i + 1``.

    Attributes:
        track_ids: outside ids, distinct.
        titles, artists: None where unknown.
        play_counts: ``(catalogue_size,)`` int64 plays in the data the catalogue was made from.
    """

    track_ids: Sequence[str]
    titles: Sequence[str | None] = field(repr=False)
    artists: Sequence[str | None] = field(repr=False)
    play_counts: NDArray[np.int64] = field(repr=False)

    def __post_init__(self) -> None:
        sizes = {
            len(self.track_ids),
            len(self.titles),
            len(self.artists),
            len(self.play_counts),
        }
        if len(sizes) != 1:
            raise ValueError(f"catalogue columns differ in length: {sorted(sizes)}")

    def __len__(self) -> int:
        return len(self.track_ids)

    @cached_property
    def _index_of(self) -> dict[str, int]:
        return {track_id: index for index, track_id in enumerate(self.track_ids, start=1)}

    def indices(self, track_ids: Iterable[str]) -> tuple[list[int], list[str]]:
        """Item indices of the known ids, in their order, and the ids that are not known."""
        known: list[int] = []
        unknown: list[str] = []
        for track_id in track_ids:
            index = self._index_of.get(track_id)
            if index is None:
                unknown.append(track_id)
            else:
                known.append(index)
        return known, unknown

    def track_id(self, item_index: int) -> str:
        return self.track_ids[item_index - 1]

    def label(self, item_index: int) -> str:
        """``Artist - Title`` as far as known, else the id."""
        title, artist = self.titles[item_index - 1], self.artists[item_index - 1]
        return " - ".join(part for part in (artist, title) if part) or self.track_id(item_index)

    def named(self, item_index: int) -> str:
        """As ``named`` says it."""
        place = item_index - 1
        return named(self.track_ids[place], self.titles[place], self.artists[place])


def named(track_id: str, title: str | None, artist: str | None) -> str:
    """A track within a sentence: ``Title by Artist`` as far as known, else its id."""
    if not title:
        return f"a track of {artist}" if artist else f"track {track_id}"
    return f"{title} by {artist}" if artist else title
