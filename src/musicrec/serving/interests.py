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
        """``(at most num,)`` items that suit best, the best first; equals by plays, then by index.

        The tracks that the graph cites as evidence are not among them; others may be heard too.
        """

    def reason(self, item: int) -> str | None:
        """Why this item, in words borne out by the listening; None where nothing says so."""


class InterestsOf(Protocol):
    """Makes a listener's interests ready; one for each loaded model, and it remembers."""

    def remembered(self, user_id: str) -> int | None:
        """The ``graph_id`` of the listener's newest that is remembered: no need to read it again.

        Not a promise: between this and ``of`` another listener's may have taken its place.
        """

    def of(self, user_id: str, stored: StoredGraph, at: datetime) -> Interests | None:
        """What a stored graph says at a moment; asked for the same graph again, it costs little.

        It fades by whole days after its newest evidence, and interests of the part of the day that
        ``at`` is in, by the clock it is written in, count for more. None where the graph speaks of
        ``at`` itself or of later: it would give away what is to come.

        Raises:
            GraphError: the document cannot be read.
            LookupError: there is no document, and the graph is not remembered (any more).
        """

    def forget(self, user_id: str) -> None:
        """Remember nothing of a listener: there is no graph of them any more."""


class StoredGraph(Protocol):
    """One row of ``user_interest_graph``, which the service reads with everything else."""

    @property
    def graph_id(self) -> int:
        """Never given twice, unlike a version: those of a listener who was forgotten begin anew."""

    @property
    def document(self) -> Mapping[str, Any] | None:
        """None where it was not read, because it is remembered."""


class GraphPage(Protocol):
    """Reads graphs for ``GET /users/{id}/interest-graph``."""

    def current(self, user_id: str) -> Mapping[str, Any] | None: ...

    def versions(self, user_id: str) -> Sequence[Mapping[str, Any]]: ...
