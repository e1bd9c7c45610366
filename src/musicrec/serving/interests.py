"""What the service asks of interest graphs; ``cli`` brings the room that answers.

``serving`` and ``graph`` stand on one floor and do not know each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


class Interests(Protocol):
    """The interest graph of one listener, beside the catalogue of one model."""

    def affinity(self, items: Ints) -> NDArray[np.float32]:
        """``(items,)`` in [0, 1): how well each suits the listener."""

    def neighbours(self, num: int) -> Ints:
        """``(at most num,)`` items that suit best, the best first; heard ones among them."""

    def reason(self, item: int) -> str | None:
        """Why this item, in words borne out by the listening; None where nothing says so."""


class InterestsOf(Protocol):
    """Makes a listener's interests ready; one for each loaded model, and it remembers."""

    def of(self, user_id: str, stored: StoredGraph, at: datetime) -> Interests:
        """Of a graph as it was read; asked again for the same version, it costs next to nothing.

        Raises:
            GraphError: the stored graph cannot be read.
        """


class StoredGraph(Protocol):
    """One row of ``user_interest_graph``, which the service reads with everything else."""

    @property
    def version(self) -> int: ...

    @property
    def document(self) -> Mapping[str, Any]: ...


class GraphPage(Protocol):
    """Reads graphs for ``GET /users/{id}/interest-graph``."""

    def current(self, user_id: str) -> Mapping[str, Any] | None: ...

    def versions(self, user_id: str) -> Sequence[Mapping[str, Any]]: ...
