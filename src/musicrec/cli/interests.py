"""A listener's interest graph, introduced to a recommender: the two do not know each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from musicrec.database.engine import Dataset
from musicrec.graph.affinity import Taste, taste_of
from musicrec.graph.reasons import reason_for
from musicrec.graph.schema import InterestGraph
from musicrec.graph.stored import current_graphs
from musicrec.graph.traits import read_traits

if TYPE_CHECKING:
    from musicrec.interactions.catalogue import Catalogue


class Interests:
    """What the current graph of one listener says of a catalogue's tracks."""

    def __init__(self, graph: InterestGraph, taste: Taste) -> None:
        self._graph = graph
        self._taste = taste

    def affinity(self) -> NDArray[np.float32]:
        """``(catalogue_size,)`` in [0, 1), in the order of item indices."""
        return self._taste.affinity(np.arange(len(self._taste.traits)))

    def reason(self, track_id: str) -> str | None:
        """Why this track, in words borne out by the listening; None where nothing says so."""
        reason = reason_for(self._graph, self._taste, self._taste.traits.row_of[track_id])
        return reason.text if reason else None


def interests_of(dataset: Dataset, user_id: str, catalogue: Catalogue) -> Interests | None:
    """The interests of a listener, or None where no graph was made of them yet."""
    stored = current_graphs(dataset, [user_id]).get(user_id)
    if stored is None:
        return None
    traits = read_traits(dataset, list(catalogue.track_ids))
    return Interests(stored.graph, taste_of(stored.graph, traits))
