"""From a provider's reply to a graph: everything is checked, nothing is believed.

Near-duplicates are merged, since models write one interest in two ways: labels that are one word by
``words.key``, other spellings of a known genre, and decades however written (``90s``). The merged
node has the greatest of the weights, is long-term if one of them is, and cites what any of them
cites. Relations follow their nodes; of two of one kind between the same nodes the stronger stays,
and one that would come to lie between a node and itself goes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pydantic import ValidationError

from musicrec.errors import MusicrecError
from musicrec.graph.digest import DAYPARTS, Row, Summary, evidence_id
from musicrec.graph.schema import (
    CONTEXTS,
    MAX_EVIDENCE,
    MAX_LABEL,
    MAX_NODES,
    MAX_RELATIONS,
    MOODS,
    THEMES,
    Edge,
    InterestGraph,
    Kind,
    Node,
    Reply,
    ReplyNode,
    ReplyRelation,
    Term,
)
from musicrec.graph.words import clean, era_of, is_genre, key, known_genre, meaning

#: Problems that one message names; more would only be longer.
MAX_PROBLEMS = 8


class ReplyError(MusicrecError):
    """A reply that makes no graph; the message says why and can be sent back to who wrote it."""


@dataclass(frozen=True, slots=True)
class _Interest:
    """A node that was checked: evidence is places of rows."""

    kind: Kind
    label: str
    weight: float
    term: Term
    evidence: tuple[int, ...]


def graph_of(text: str, summary: Summary) -> InterestGraph:
    """The graph that a reply to this summary stands for.

    Evidence that is cited beside the point is dropped: for an artist the tracks of others, for an
    era those known to be of another, for a group those not in it. A node left without is an error.

    Raises:
        ReplyError: no JSON, not of the schema, or a claim that the summary does not bear out; the
            message names up to ``MAX_PROBLEMS`` of them.
    """
    reply = _parsed(text)
    problems: list[str] = []
    if not reply.nodes:
        problems.append("there are no nodes: give at least one")
    for what, many, most in (
        ("nodes", len(reply.nodes), MAX_NODES),
        ("relations", len(reply.relations), MAX_RELATIONS),
    ):
        if many > most:
            problems.append(f"there are {many} {what}: give at most {most}")
    places = {evidence_id(place): place for place in range(len(summary.rows))}
    interests: dict[str, _Interest] = {}
    for node in reply.nodes:
        try:
            if node.id in interests:
                raise ReplyError("another node has the same id")
            interests[node.id] = _checked(node, summary, places)
        except ReplyError as error:
            problems.append(f"node {_shown(node.id)}: {error}")
    known = {node.id for node in reply.nodes}
    for relation in reply.relations:
        try:
            _check_relation(relation, known)
        except ReplyError as error:
            problems.append(
                f"relation {_shown(relation.source)} to {_shown(relation.target)}: {error}"
            )
    if problems:
        more = len(problems) - MAX_PROBLEMS
        rest = [f"and {more} more problems"] if more > 0 else []
        raise ReplyError("; ".join(problems[:MAX_PROBLEMS] + rest))
    return _graph(interests, reply.relations, summary)


def _parsed(text: str) -> Reply:
    def no_constant(name: str) -> float:
        raise ReplyError(f"{name} is no JSON number")

    try:
        values = json.loads(text, parse_constant=no_constant)
    except (ValueError, RecursionError) as error:
        raise ReplyError(f"not JSON: {_shown(str(error))}") from error
    try:
        return Reply.model_validate(values)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        lines = [f"{'.'.join(map(str, each['loc'])) or 'reply'}: {each['msg']}" for each in found]
        raise ReplyError(
            "; ".join(clean(line, 200) or "?" for line in lines[:MAX_PROBLEMS])
        ) from None


def _shown(text: str) -> str:
    """What strangers or models wrote, short and on one line."""
    return json.dumps(clean(text, MAX_LABEL) or "", ensure_ascii=False)


def _checked(node: ReplyNode, summary: Summary, places: dict[str, int]) -> _Interest:
    _check_weight(node.weight)
    if not node.evidence:
        raise ReplyError("it cites no evidence")
    unknown = [cited for cited in node.evidence if cited not in places]
    if unknown:
        raise ReplyError(
            f"evidence {', '.join(map(_shown, unknown[:5]))} is not in the summary, whose ids are "
            f"e1 to e{len(places)}"
        )
    cited = tuple(dict.fromkeys(places[each] for each in node.evidence))
    if len(cited) > MAX_EVIDENCE:
        raise ReplyError(f"it cites {len(cited)} tracks: cite at most {MAX_EVIDENCE}")
    kind, said = _meant(node, cited, summary)
    label, evidence = _JUDGES[kind](said, cited, summary)
    return _Interest(kind, label, float(node.weight), node.term, evidence)


def _meant(node: ReplyNode, cited: tuple[int, ...], summary: Summary) -> tuple[Kind, str]:
    """Kind and label; a cited track's tag taken for a genre may speak of something else."""
    tags = {key(tag) for _, row in _cited(summary, cited) for tag in row.tags}
    meant = meaning(node.label) if node.kind == "genre" and key(node.label) in tags else None
    return meant or (node.kind, node.label)


def _check_weight(weight: float) -> None:
    if not (math.isfinite(weight) and 0 <= weight <= 1):
        raise ReplyError(f"weight {weight} is not within 0 and 1")


def _check_relation(relation: ReplyRelation, known: set[str]) -> None:
    _check_weight(relation.weight)
    for end in (relation.source, relation.target):
        if end not in known:
            raise ReplyError(f"there is no node {_shown(end)}")
    if relation.source == relation.target:
        raise ReplyError("it must join two different nodes")


#: From a label, the places cited and the summary: the label stored and the evidence that counts.
_Judge = Callable[[str, tuple[int, ...], Summary], tuple[str, tuple[int, ...]]]


def _cited(summary: Summary, cited: Iterable[int]) -> list[tuple[int, Row]]:
    return [(place, summary.rows[place]) for place in cited]


def _genre(label: str, cited: tuple[int, ...], summary: Summary) -> tuple[str, tuple[int, ...]]:
    tags = {key(tag): tag for _, row in _cited(summary, cited) for tag in row.tags if is_genre(tag)}
    genre = known_genre(label) or tags.get(key(label))
    if genre is None:
        raise ReplyError(f"genre {_shown(label)} is neither a tag of a cited track nor a known one")
    return genre, cited


def _artist(label: str, cited: tuple[int, ...], summary: Summary) -> tuple[str, tuple[int, ...]]:
    theirs = [
        (place, row.artist)
        for place, row in _cited(summary, cited)
        if row.artist and key(row.artist) == key(label)
    ]
    if not theirs:
        raise ReplyError(f"artist {_shown(label)} is not the artist of a cited track")
    return theirs[0][1], tuple(place for place, _ in theirs)


def _era(label: str, cited: tuple[int, ...], summary: Summary) -> tuple[str, tuple[int, ...]]:
    era = era_of(label)
    if era is None:
        raise ReplyError(f"era {_shown(label)} is no decade such as 1990s")
    fitting = tuple(place for place, row in _cited(summary, cited) if row.era in (era, None))
    if not fitting:
        raise ReplyError(f"no cited track came out in the {era}")
    return era, fitting


def _mood(label: str, cited: tuple[int, ...], summary: Summary) -> tuple[str, tuple[int, ...]]:
    return _of(label, MOODS, "mood"), cited


def _context(label: str, cited: tuple[int, ...], summary: Summary) -> tuple[str, tuple[int, ...]]:
    context = _of(label, CONTEXTS, "context")
    fitting = tuple(place for place, row in _cited(summary, cited) if plays_in(row, context))
    if not fitting:
        raise ReplyError(f"no cited track was played in the context {_shown(context)}")
    return context, fitting


def _theme(label: str, cited: tuple[int, ...], summary: Summary) -> tuple[str, tuple[int, ...]]:
    for group in summary.groups:
        if key(group.name) == key(label):
            fitting = tuple(place for place in cited if place in group.rows)
            if not fitting:
                raise ReplyError(f"no cited track is of the group {_shown(group.name)}")
            return group.name, fitting
    return _of(label, THEMES, "theme"), cited


def _of(label: str, words: tuple[str, ...], kind: str) -> str:
    found = next((word for word in words if key(word) == key(label)), None)
    if found is None:
        raise ReplyError(f"{kind} {_shown(label)} is none of {', '.join(words)}")
    return found


_JUDGES: dict[Kind, _Judge] = {
    "genre": _genre,
    "artist": _artist,
    "mood": _mood,
    "era": _era,
    "context": _context,
    "theme": _theme,
}


def plays_in(row: Row, context: str) -> int:
    """Plays of a track in one of ``CONTEXTS``."""
    if context in DAYPARTS:
        return row.dayparts[DAYPARTS.index(context)]
    of = {"weekend": row.weekend, "workday": row.plays - row.weekend, "on the move": row.moving}
    return of[context]


def _graph(
    interests: dict[str, _Interest], relations: list[ReplyRelation], summary: Summary
) -> InterestGraph:
    merged: dict[tuple[Kind, str], _Interest] = {}
    for one in interests.values():
        word = (one.kind, key(one.label))
        merged[word] = _merged(merged[word], one) if word in merged else one
    ordered = sorted(merged, key=lambda word: (-merged[word].weight, word[0], merged[word].label))
    place_of = {word: place for place, word in enumerate(ordered)}
    edges: dict[tuple[int, int, str], Edge] = {}
    for relation in relations:
        ends = [interests[end] for end in (relation.source, relation.target)]
        source, target = (place_of[end.kind, key(end.label)] for end in ends)
        if relation.kind == "with" and source > target:  # it has no direction
            source, target = target, source
        edge = Edge(source=source, target=target, kind=relation.kind, weight=relation.weight)
        word3 = (source, target, relation.kind)
        if source != target and (word3 not in edges or edges[word3].weight < edge.weight):
            edges[word3] = edge
    evidence = summary.evidence
    nodes = (
        Node(
            kind=one.kind,
            label=one.label,
            weight=one.weight,
            term=one.term,
            evidence=tuple(evidence[place] for place in one.evidence),
        )
        for one in (merged[word] for word in ordered)
    )
    return InterestGraph(
        nodes=tuple(nodes),
        edges=tuple(edges[each] for each in sorted(edges)),
        heard_until=summary.heard_until,
    )


def _merged(one: _Interest, other: _Interest) -> _Interest:
    evidence = tuple(dict.fromkeys(one.evidence + other.evidence))
    return _Interest(
        kind=one.kind,
        label=one.label,
        weight=max(one.weight, other.weight),
        term="long" if "long" in (one.term, other.term) else "short",
        evidence=evidence[:MAX_EVIDENCE],
    )
