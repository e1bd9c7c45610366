"""Why a track is recommended, in a listener's own listening: "because of your 1990s trip hop …".

A reason names interests of the graph and cites tracks of the evidence, and nothing else. Each word
of it is borne out by the tracks that it cites: an era or a context is said beside the main interest
only if at least one track is evidence of all that is said, and only such are cited.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from musicrec.graph.affinity import Taste, contexts_of
from musicrec.graph.schema import Evidence, InterestGraph, Node
from musicrec.graph.traits import Trait
from musicrec.graph.words import artist_of, key
from musicrec.interactions.catalogue import named

#: An agreement below this is chance rather than a reason.
WEAKEST = 0.05
MOST_CITED = 3

_TIMES = {
    "morning": "mornings",
    "daytime": "days",
    "evening": "evenings",
    "night": "nights",
    "weekend": "weekends",
    "workday": "workdays",
}


@dataclass(frozen=True, slots=True)
class Reason:
    """One recommendation's reason.

    Attributes:
        text: a sentence without its full stop; plain text, to be escaped by whoever shows it.
        nodes: places of the interests it names in ``InterestGraph.nodes``, the main one first.
        evidence: the tracks it cites, most played first.
    """

    text: str
    nodes: tuple[int, ...]
    evidence: tuple[Evidence, ...]


def reason_for(
    graph: InterestGraph, taste: Taste, row: int, *, at: datetime | None = None
) -> Reason | None:
    """Why the track of ``row`` suits the listener; None where nothing in the graph says so.

    A track that the graph cites itself needs no other reason than its own plays.

    Args:
        taste: of the same graph, by ``taste_of``.
        at: the moment it is played for; a context of another part of the day is then not named.
    """
    track_id = taste.traits.track_ids[row]
    matches = [node for node, agreement in taste.matches(row) if agreement >= WEAKEST]
    for node in matches:
        for track in graph.nodes[node].evidence:
            if track.track_id == track_id:
                return Reason(f"because you come back to it: {_plays(track)}", (node,), (track,))
    # One at a time: most listeners have far more interests than a sentence names.
    supported = ((node, cited) for node in matches if (cited := _cited(graph, taste, node, row)))
    main, shared = next(supported, (-1, []))
    if not shared:
        return None
    said = [main]
    eras = [
        node
        for node in matches
        if graph.nodes[node].kind == "era" and _cited(graph, taste, node, row)
    ]
    for kind, choices in (("era", eras), ("context", _contexts(graph, at))):
        for node in choices if graph.nodes[main].kind != kind else ():
            if both := _both(shared, graph.nodes[node].evidence):
                said.append(node)
                shared = both
                break
    cited = sorted(shared, key=lambda track: (-track.plays, track.track_id))[:MOST_CITED]
    subject = _subject([graph.nodes[node] for node in said])
    is_artist = graph.nodes[main].kind == "artist"
    return Reason(
        f"because of your {subject}: {_list(cited, with_artist=not is_artist)}",
        tuple(said),
        tuple(cited),
    )


def _cited(graph: InterestGraph, taste: Taste, node: int, row: int) -> list[Evidence]:
    """The evidence by which a node speaks for a track: all of it if the track bears its trait.

    Otherwise the two meet in an artist alone, and only that artist's tracks are evidence of it.
    """
    interest, traits = graph.nodes[node], taste.traits
    own = traits.column.get(Trait(interest.kind, key(interest.label)), -1)
    if own in traits.columns_of(row):
        return list(interest.evidence)
    artist = traits.artists[row]
    return [
        track
        for track in interest.evidence
        if (name := artist_of(track.artist))
        and traits.column.get(Trait("artist", key(name)), -2) == artist
    ]


def _contexts(graph: InterestGraph, at: datetime | None) -> list[int]:
    """Context nodes, the heaviest first; with a moment, only those that it has."""
    now = None if at is None else contexts_of(at)
    return [
        index
        for index, node in enumerate(graph.nodes)
        if node.kind == "context" and (now is None or node.label in now)
    ]


def _both(some: Sequence[Evidence], others: Sequence[Evidence]) -> list[Evidence]:
    ids = {cited.track_id for cited in others}
    return [cited for cited in some if cited.track_id in ids]


def _subject(nodes: Sequence[Node]) -> str:
    """``1990s trip hop evenings``: era, main interest, context, as far as they are said."""
    main = nodes[0]
    era = next((node.label for node in nodes[1:] if node.kind == "era"), None)
    context = next((node.label for node in nodes if node.kind == "context"), None)
    what = [era] if era else []
    if main.kind != "context":
        what.append(main.label)
    if context in _TIMES:
        what.append(_TIMES[context])
    elif not main.label.endswith("listening"):
        what.append("listening")
    return " ".join(what) + (f" {context}" if context and context not in _TIMES else "")


def _list(cited: Sequence[Evidence], *, with_artist: bool) -> str:
    names = [name_of(track, with_artist=with_artist) for track in cited]
    named = [f"{name} ({_plays(e)})" for name, e in zip(names, cited, strict=True)]
    return named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"


def name_of(track: Evidence, *, with_artist: bool = True) -> str:
    """``title by artist`` as far as known, else the track's id."""
    says_artist = with_artist or not track.title
    return named(track.track_id, track.title, track.artist if says_artist else None)


def _plays(track: Evidence) -> str:
    return f"{track.plays} play{'' if track.plays == 1 else 's'}"
