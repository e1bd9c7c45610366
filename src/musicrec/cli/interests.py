"""Interest graphs, introduced to the service: ``serving`` and ``graph`` do not know each other."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from adbc_driver_manager.dbapi import Error as AdbcError
from numpy.typing import NDArray
from sqlalchemy.exc import DBAPIError

from musicrec.database.engine import Dataset
from musicrec.graph.affinity import Taste, contexts_of, spoken_at, taste_of
from musicrec.graph.document import document_of, heading_of
from musicrec.graph.neighbours import Bearers
from musicrec.graph.reasons import reason_for
from musicrec.graph.schema import InterestGraph
from musicrec.graph.stored import current_graphs, graph_in, stored_versions
from musicrec.graph.traits import read_traits

if TYPE_CHECKING:
    from musicrec.interactions.catalogue import Catalogue
    from musicrec.serving.interests import StoredGraph

Ints = NDArray[np.int64]

#: Listeners whose graphs are remembered, 70 KB each; those asked for longest ago give way.
REMEMBERED = 2048

#: Neighbours found at once, and moments kept of one graph.
_NEIGHBOURS, _MOMENTS = 200, 4


class ListenerInterests:
    """What a graph says of the tracks of a catalogue, at a moment; ``serving``'s ``Interests``.

    An item index is a row of the traits and one: 0 is padding.
    """

    def __init__(
        self, graph: InterestGraph, taste: Taste, bearers: Bearers, at: datetime | None = None
    ) -> None:
        self._graph = graph
        self._taste = taste
        self._bearers = bearers
        self._at = at
        self._nearest: Ints | None = None

    def affinity(self, items: Ints) -> NDArray[np.float32]:
        """``(items,)`` in [0, 1): how well each suits the listener."""
        return self._taste.affinity(np.asarray(items) - 1)

    def neighbours(self, num: int) -> Ints:
        """``(at most num,)`` items that suit best, the best first; none that the graph cites."""
        if self._nearest is None or len(self._nearest) < num:
            self._nearest = self._bearers.nearest(self._taste, max(num, _NEIGHBOURS)) + 1
        return self._nearest[:num]

    def reason(self, item: int) -> str | None:
        """Why this item, in words borne out by the listening; None where nothing says so."""
        reason = reason_for(self._graph, self._taste, item - 1, at=self._at)
        return reason.text if reason else None


@dataclass(slots=True)
class _Known:
    """A listener's graph, and what it said at the moments it was last asked for."""

    graph_id: int
    graph: InterestGraph
    spoken: datetime | None
    at: OrderedDict[tuple[int, frozenset[str]], ListenerInterests] = field(
        default_factory=OrderedDict
    )


class RememberedInterests:
    """``serving``'s ``InterestsOf`` beside one catalogue; threads may share it.

    Args:
        bearers: the traits of the catalogue's tracks, in the order of item indices.
        remember: how many listeners.
    """

    def __init__(self, bearers: Bearers, remember: int = REMEMBERED) -> None:
        self._bearers = bearers
        self._remember = remember
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._turn = threading.Lock()

    def remembered(self, user_id: str) -> int | None:
        """The ``graph_id`` that need not be read again."""
        known = self._known.get(user_id)
        return None if known is None else known.graph_id

    def of(self, user_id: str, stored: StoredGraph, at: datetime) -> ListenerInterests | None:
        """What a stored graph says at a moment; None where it speaks of that moment or later.

        Raises:
            GraphError: the document cannot be read.
            LookupError: there is no document, and the graph is not remembered (any more).
        """
        with self._turn:
            known = self._known.get(user_id)
            if known is None or known.graph_id != stored.graph_id:
                known = _known(stored)
                self._known[user_id] = known
                if len(self._known) > self._remember:
                    self._known.popitem(last=False)
            self._known.move_to_end(user_id)
            if known.spoken is not None and known.spoken >= at:
                return None
            return self._at(known, at)

    def forget(self, user_id: str) -> None:
        """Remember nothing of a listener."""
        with self._turn:
            self._known.pop(user_id, None)

    def _at(self, known: _Known, at: datetime) -> ListenerInterests:
        # By whole days, so that a graph is not made ready anew for every request.
        days = 0 if known.spoken is None else (at - known.spoken).days
        moment = days, contexts_of(at)
        interests = known.at.get(moment)
        if interests is None:
            as_of = None if known.spoken is None else known.spoken + timedelta(days=days)
            taste = taste_of(known.graph, self._bearers.traits, as_of=as_of, at=at)
            interests = ListenerInterests(known.graph, taste, self._bearers, at)
            known.at[moment] = interests
            if len(known.at) > _MOMENTS:
                known.at.popitem(last=False)
        known.at.move_to_end(moment)
        return interests


def _known(stored: StoredGraph) -> _Known:
    if stored.document is None:
        raise LookupError(f"graph {stored.graph_id} is not remembered; read its document")
    graph = graph_in(stored.document, "the interest graph of this listener")
    return _Known(stored.graph_id, graph, spoken_at(graph))


def bearers_of(dataset: Dataset, catalogue: Catalogue) -> Bearers:
    """The traits of a catalogue's tracks as the dataset has them; a second per 200,000 tracks.

    Raises:
        DatabaseError: the server cannot be reached, or is lost.
    """
    try:
        traits = read_traits(dataset, list(catalogue.track_ids))
    except (AdbcError, OSError) as error:
        raise dataset.address.failure(error) from error
    # The very texts of the catalogue: a million ids are not kept twice.
    traits = replace(traits, track_ids=catalogue.track_ids)
    return Bearers(traits, catalogue.play_counts)


def remembered_interests(dataset: Dataset, catalogue: Catalogue) -> RememberedInterests:
    """The interests of a dataset's listeners beside a catalogue; made once for a loaded model."""
    return RememberedInterests(bearers_of(dataset, catalogue))


def interests_of(dataset: Dataset, user_id: str, catalogue: Catalogue) -> ListenerInterests | None:
    """The interests of one listener, unfaded, or None where no graph was made of them yet."""
    stored = current_graphs(dataset, [user_id]).get(user_id)
    if stored is None:
        return None
    bearers = bearers_of(dataset, catalogue)
    return ListenerInterests(stored.graph, taste_of(stored.graph, bearers.traits), bearers)


class StoredGraphs:
    """``serving``'s ``GraphPage``: the graphs of a dataset's listeners, as they are stored."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def current(self, user_id: str) -> Mapping[str, Any] | None:
        """The current graph with its provenance, as JSON has it; None where there is none.

        Raises:
            GraphError: it cannot be read.
            DatabaseError: the server cannot be reached, or is lost.
        """
        with _reading(self._dataset):
            stored = current_graphs(self._dataset, [user_id]).get(user_id)
        return None if stored is None else document_of(stored)

    def versions(self, user_id: str) -> Sequence[Mapping[str, Any]]:
        """Every version's number, times and provenance, the first first; empty for none.

        Raises:
            GraphError, DatabaseError: as ``current``.
        """
        with _reading(self._dataset):
            return [heading_of(stored) for stored in stored_versions(self._dataset, user_id)]


@contextmanager
def _reading(dataset: Dataset) -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        raise dataset.address.failure(error.orig or error) from error
