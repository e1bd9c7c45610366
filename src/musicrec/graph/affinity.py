"""How well tracks suit an interest graph, in [0, 1], and which interests say so.

Each node of a graph has a *strength*, ``TRUST[kind] · sqrt(weight) · fading``. The root, because a
weight is a share of listening and the shares of narrow interests are small by nature. A candidate
agrees with a node to the degree that it bears the node's trait (``traits``); where the node's
artist is known from its evidence alone, to ``SPREAD`` times the artist's share of its plays. A
track that a node cites agrees with it as ``TRUST["track"]`` says. All agreements of a candidate
are united as independent reasons to like it: ``1 − Π (1 − strength · degree)``.

Merging: two nodes with the same trait, and two nodes citing the same track, count once, by the
stronger one.

Fading: a graph speaks of the day of the last play it was made of. Asked as of a later moment,
short-term nodes lose half their strength every ``HALF_LIFE["short"]`` days and long-term ones every
``HALF_LIFE["long"]``; weights hold the recency up to that day already.

Contexts are of a moment, not of a track: without ``at`` they say nothing; with it, nodes that go
``with`` a context of the moment count up to ``BOOST`` times as much.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from musicrec.graph.schema import InterestGraph, Kind, Node
from musicrec.graph.traits import Floats, Ints, Trait, Traits
from musicrec.graph.words import artist_of, key

#: How much an agreement with a node of a kind says. Set by sense: in the synthetic world genres and
#: artists carry the ranking, and no other value of any of them gains 0.01 (benchmarks/affinity.py).
TRUST: Mapping[str, float] = {
    "artist": 0.9,
    "track": 0.7,
    "genre": 0.6,
    "theme": 0.25,
    "mood": 0.25,
    "era": 0.2,
}
SPREAD = 0.5
HALF_LIFE: Mapping[str, float] = {"short": 30, "long": 365}  # days
BOOST = 1.5
_DAY = 86_400
_NEXT_TO_NOTHING = 1e-4


@dataclass(frozen=True)
class Taste:
    """A graph made ready for asking about candidates; small, and the same for every request.

    Attributes:
        traits: of the catalogue whose rows the candidates are.
        columns: ``(n,)`` int32 traits that count, rising.
        strengths: ``(n,)`` float32 in (0, 1).
        nodes: ``(n,)`` which node each comes from.
        cited: ``(m,)`` rows of the tracks cited as evidence, rising.
        cited_strengths, cited_nodes: ``(m,)`` likewise.
    """

    traits: Traits = field(repr=False)
    columns: npt.NDArray[np.int32] = field(repr=False)
    strengths: Floats = field(repr=False)
    nodes: Ints = field(repr=False)
    cited: Ints = field(repr=False)
    cited_strengths: Floats = field(repr=False)
    cited_nodes: Ints = field(repr=False)

    def affinity(self, rows: Ints) -> Floats:
        """``(candidates,)`` float32 in [0, 1); 0 for -1, a track that ``traits`` does not hold."""
        rows = np.asarray(rows, dtype=np.int64)
        owner, _, agreement = self._agreements(rows)
        doubt = np.zeros(len(rows))
        np.add.at(doubt, owner, np.log1p(-agreement))
        place, is_cited = _places(self.cited, rows)
        if len(self.cited):
            doubt += np.where(is_cited, np.log1p(-self.cited_strengths[place]), 0)
        return np.abs(np.expm1(doubt)).astype(np.float32)

    def matches(self, row: int) -> list[tuple[int, float]]:
        """``(node, agreement)`` of all that speaks for one candidate, the strongest first.

        A node is named once; among equals the earlier comes first.
        """
        _, place, agreement = self._agreements(np.array([row]))
        found: dict[int, float] = {}
        for node, value in zip(self.nodes[place].tolist(), agreement.tolist(), strict=True):
            found[node] = max(found.get(node, 0.0), value)
        place, is_cited = _places(self.cited, np.array([row]))
        if is_cited.any():
            node, value = int(self.cited_nodes[place[0]]), float(self.cited_strengths[place[0]])
            found[node] = max(found.get(node, 0.0), value)
        return sorted(found.items(), key=lambda item: (-item[1], item[0]))

    def _agreements(self, rows: Ints) -> tuple[Ints, Ints, Floats]:
        """Which candidate agrees, by which of ``columns`` (its place there), and how much."""
        starts = self.traits.starts
        known = rows >= 0
        begin = np.where(known, starts[rows], 0)
        lengths = np.where(known, starts[rows + 1] - starts[rows], 0)
        owner = np.repeat(np.arange(len(rows)), lengths)
        before = np.cumsum(lengths) - lengths
        entries = np.arange(len(owner)) + (begin - before)[owner]
        place, hit = _places(self.columns, self.traits.columns[entries])
        owner, place, entries = owner[hit], place[hit], entries[hit]
        return owner, place, self.strengths[place] * self.traits.degrees[entries]


def _places(
    ordered: npt.NDArray[np.integer], wanted: npt.NDArray[np.integer]
) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Where each of ``wanted`` stands in ``ordered``, and whether it does."""
    if len(ordered) == 0:
        return np.zeros(len(wanted), dtype=np.int64), np.zeros(len(wanted), dtype=bool)
    place = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
    return place, ordered[place] == wanted


def taste_of(
    graph: InterestGraph,
    traits: Traits,
    *,
    as_of: datetime | None = None,
    at: datetime | None = None,
) -> Taste:
    """What a graph says of the tracks of ``traits``.

    Args:
        as_of: ask as of then: interests fade after the last play it was made of. None: no fading.
        at: the moment to play for, in the listener's own clock; None: any.
    """
    by_column: dict[int, tuple[float, int]] = {}
    by_row: dict[int, tuple[float, int]] = {}
    for place, strength in enumerate(_strengths(graph, as_of, at)):
        node = graph.nodes[place]
        rows = [traits.row_of.get(track.track_id, -1) for track in node.evidence]
        for row in rows:
            if row >= 0:
                _keep_stronger(by_row, row, TRUST["track"] * strength, place)
        if node.kind != "context":
            for column, share in _columns_of(node, rows, traits).items():
                _keep_stronger(by_column, column, TRUST[node.kind] * strength * share, place)
    columns, strength_of, node_of = _sorted(by_column)
    cited, cited_strengths, cited_nodes = _sorted(by_row)
    return Taste(
        traits=traits,
        columns=columns.astype(np.int32),
        strengths=strength_of,
        nodes=node_of,
        cited=cited,
        cited_strengths=cited_strengths,
        cited_nodes=cited_nodes,
    )


def _strengths(graph: InterestGraph, as_of: datetime | None, at: datetime | None) -> list[float]:
    """Of each node, before the trust in its kind."""
    strengths = [float(node.weight) ** 0.5 for node in graph.nodes]
    if as_of is not None and (spoken := spoken_at(graph)) is not None:
        days = max(0.0, (as_of - spoken).total_seconds() / _DAY)
        strengths = [
            strength * 0.5 ** (days / HALF_LIFE[node.term])
            for strength, node in zip(strengths, graph.nodes, strict=True)
        ]
    if at is not None:
        now = contexts_of(at)
        for edge in graph.edges:
            ends = ((edge.source, edge.target), (edge.target, edge.source))
            for context, other in ends if edge.kind == "with" else ():
                node = graph.nodes[context]
                if node.kind == "context" and node.label in now:
                    boosted = strengths[other] * (1 + (BOOST - 1) * float(edge.weight))
                    strengths[other] = min(boosted, 1.0)
    return strengths


def spoken_at(graph: InterestGraph) -> datetime | None:
    """The last play a graph was made of; of older graphs, the newest among their evidence.

    None where it has neither.
    """
    if graph.heard_until is not None:
        return _moment(graph.heard_until)
    plays = [track.last_played_at for node in graph.nodes for track in node.evidence]
    return max(map(_moment, plays), default=None)


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def contexts_of(moment: datetime) -> frozenset[str]:
    """The contexts that a moment has by the clock it is written in."""
    hour = moment.hour
    if 5 <= hour < 11:
        part = "morning"
    elif 11 <= hour < 17:
        part = "daytime"
    else:
        part = "evening" if 17 <= hour < 22 else "night"
    return frozenset({part, "weekend" if moment.weekday() >= 5 else "workday"})


def _columns_of(node: Node, rows: Sequence[int], traits: Traits) -> dict[int, float]:
    """What a node asks for: the artists of its evidence by their plays, and its own trait."""
    plays: dict[int, int] = {}
    for track, row in zip(node.evidence, rows, strict=True):
        # By its row where there is one: reading a name costs twenty times as much.
        column = int(traits.artists[row]) if row >= 0 else _column(traits, "artist", track.artist)
        plays[column] = plays.get(column, 0) + max(track.plays, 1)
    total = sum(plays.values())
    asked = {column: SPREAD * n / total for column, n in plays.items()}
    asked[_column(traits, node.kind, node.label)] = 1.0
    asked.pop(-1, None)
    return asked


def _column(traits: Traits, kind: Kind, label: str | None) -> int:
    """The column of a trait; -1 where no track bears it."""
    name = artist_of(label) if kind == "artist" else label
    return traits.column.get(Trait(kind, key(name)), -1) if name else -1


def _keep_stronger(
    kept: dict[int, tuple[float, int]], place: int, strength: float, node: int
) -> None:
    if strength > kept.get(place, (_NEXT_TO_NOTHING, 0))[0]:
        kept[place] = (strength, node)


def _sorted(kept: Mapping[int, tuple[float, int]]) -> tuple[Ints, Floats, Ints]:
    places = sorted(kept)
    return (
        np.array(places, dtype=np.int64),
        np.array([kept[place][0] for place in places], dtype=np.float32),
        np.array([kept[place][1] for place in places], dtype=np.int64),
    )
