"""The provider that needs no key: the same summary always gives the same bytes.

It says what can be counted and no more. Weights are shares of the plays, each halved by its age,
less those that were skipped; thresholds stand below. What it cannot hear, it does not say: without
tags there are no genres and no moods, without years no eras, and of the themes it knows those that
its rules below name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence

from musicrec.graph.digest import DAYPARTS, Portion, Row, Summary, evidence_id
from musicrec.graph.provider import Answer, Ask, Price, Usage
from musicrec.graph.reading import plays_in
from musicrec.graph.schema import (
    MAX_EVIDENCE,
    MAX_NODES,
    MAX_RELATIONS,
    Kind,
    Relation,
    Reply,
    ReplyNode,
    ReplyRelation,
    Term,
)
from musicrec.graph.words import key, meaning

#: Raised whenever the rules change: another version gives other graphs.
MODEL = "local-1"

NUM_GENRES, NUM_ARTISTS, NUM_MOODS, NUM_ERAS, NUM_CITED = 8, 10, 4, 3, 6
#: An interest weighs so much at least, and this part of the greatest of its kind.
LEAST, LEAST_OF_GREATEST = 0.02, 0.15
#: Of one kind, a share that grew so many times over is of the last weeks.
GREW = 3
#: From which share of the plays on a context is worth a node; even spread is a quarter, 2 of 7.
CONTEXT_SHARES = {
    "morning": 0.4,
    "daytime": 0.45,
    "evening": 0.4,
    "night": 0.4,
    "weekend": 0.45,
    "workday": 0.85,
    "on the move": 0.4,
}
#: One evening is no habit.
FEWEST_SITTINGS = 4
#: This part of a node's rows must be in another's for it to lie within.
WITHIN = 0.75


class Local:
    """Counts instead of asking; see the module."""

    name = "local"
    model = MODEL
    price: Price | None = Price(input=0, output=0)

    async def ask(self, ask: Ask, *, timeout_seconds: float) -> Answer:
        """The reply to ``ask.summary``; ``ask.prompt`` is not read and nothing can time out."""
        text = reply_to(ask.summary).model_dump_json()
        return Answer(
            raw={"reply": json.loads(text)},
            text=text,
            end="complete",
            usage=Usage(input=0, output=0),
            model=self.model,
        )

    async def count_tokens(self, ask: Ask) -> int:
        """None are used."""
        return 0

    async def close(self) -> None:
        """There is nothing to let go."""


def reply_to(summary: Summary) -> Reply:
    """What can be counted of a history."""
    nodes = list(_nodes(summary))[:MAX_NODES] or list(_contexts(summary, everywhere=True))[:1]
    nodes = [node.model_copy(update={"id": f"n{i}"}) for i, node in enumerate(nodes, start=1)]
    relations = sorted(_relations(nodes, summary), key=lambda r: (-r.weight, r.kind))
    return Reply(nodes=nodes, relations=relations[:MAX_RELATIONS])


def _nodes(summary: Summary) -> Iterator[ReplyNode]:
    genres, moods, themes = (_told(summary.tags, kind) for kind in ("genre", "mood", "theme"))
    yield from _kind(summary, "genre", genres, NUM_GENRES, _bears)
    by_artist = [(each.name, each) for each in summary.artists]
    yield from _kind(summary, "artist", by_artist, NUM_ARTISTS, _is_by)
    yield from _kind(summary, "mood", moods, NUM_MOODS, _bears)
    by_era = [(each.name, each) for each in summary.eras]
    yield from _kind(summary, "era", by_era, NUM_ERAS, lambda row, era: row.era == era)
    yield from _contexts(summary)
    yield from _themes(summary, themes)


def _told(tags: Sequence[Portion], kind: Kind) -> list[tuple[str, Portion]]:
    """``(label, portion)`` of the tags that speak of a kind; one label may come twice."""
    return [(m[1], tag) for tag in tags if (m := meaning(tag.name)) and m[0] == kind]


def _bears(row: Row, label: str) -> bool:
    return any((m := meaning(tag)) is not None and m[1] == label for tag in row.tags)


def _is_by(row: Row, artist: str) -> bool:
    return row.artist is not None and key(row.artist) == key(artist)


def _kind(
    summary: Summary,
    kind: Kind,
    portions: Sequence[tuple[str, Portion]],
    most: int,
    supports: Callable[[Row, str], bool],
) -> Iterator[ReplyNode]:
    """Those of ``portions`` that weigh enough, the heaviest first, each with its best rows."""
    greatest = max((portion.weight for _, portion in portions), default=0)
    least = max(LEAST, LEAST_OF_GREATEST * greatest)
    heaviest: dict[str, Portion] = {}
    for label, portion in portions:
        if portion.weight >= least and portion.weight > _weight_of(heaviest.get(label)):
            heaviest[label] = portion
    chosen = sorted(heaviest.items(), key=lambda each: (-each[1].weight, each[0]))[:most]
    for label, portion in chosen:
        rows = [place for place, row in enumerate(summary.rows) if supports(row, label)]
        if rows:
            yield _node(kind, label, portion.weight, _term(summary, portion), rows)


def _weight_of(portion: Portion | None) -> float:
    return portion.weight if portion else 0


def _term(summary: Summary, portion: Portion) -> Term:
    """Without older plays nothing can be told from what was there all along."""
    has_older = summary.recent_plays < summary.plays
    return "short" if has_older and portion.recent > GREW * portion.older else "long"


def _node(kind: Kind, label: str, weight: float, term: Term, rows: Sequence[int]) -> ReplyNode:
    cited = [evidence_id(place) for place in rows[: min(NUM_CITED, MAX_EVIDENCE)]]
    return ReplyNode(id="", kind=kind, label=label, weight=weight, term=term, evidence=cited)


def _contexts(summary: Summary, *, everywhere: bool = False) -> Iterator[ReplyNode]:
    """Those that stand out; ``everywhere``: all, the most common first, for want of anything."""
    if summary.sittings < FEWEST_SITTINGS and not everywhere:
        return
    habits = summary.habits
    shares = dict(zip(DAYPARTS, habits.dayparts, strict=True))
    shares |= {"weekend": habits.weekend, "workday": 1 - habits.weekend}
    shares |= {"on the move": habits.moving}
    ordered = sorted(shares, key=lambda context: -shares[context]) if everywhere else [*shares]
    for context in ordered:
        share = shares[context]
        rows = [place for place in _heard(summary) if plays_in(summary.rows[place], context)]
        rows.sort(key=lambda place: -plays_in(summary.rows[place], context))
        if (everywhere or share >= CONTEXT_SHARES[context]) and rows:
            yield _node("context", context, round(share, 3), "long", rows)


def _themes(summary: Summary, tagged: Sequence[tuple[str, Portion]]) -> Iterator[ReplyNode]:
    """Themes by habit, then by tag, then groups: what is heard together where no tags are."""
    rows, habits = summary.rows, summary.habits
    every = _heard(summary)
    replayed = sorted((r for r in every if rows[r].plays > 1), key=lambda r: -rows[r].plays)
    new = [r for r in every if rows[r].recent == rows[r].plays]
    if habits.repeats >= 0.5 and replayed:
        yield _node("theme", "comfort listening", habits.repeats, "long", replayed)
    if habits.new_lately >= 0.5 and new:
        yield _node("theme", "discovery", habits.new_lately, "short", new)
    if habits.album_runs >= 0.3:
        yield _node("theme", "album listening", habits.album_runs, "long", every)
    if habits.long_sittings >= 0.5:
        yield _node("theme", "background listening", habits.long_sittings, "long", every)
    if habits.deep >= 0.5 and summary.artists:
        top = summary.artists[0].name
        yield _node("theme", "deep catalogue", habits.deep, "long", _by(rows, top) or every)
    if summary.artists and summary.artists[0].share >= 0.4:
        top, share = summary.artists[0].name, summary.artists[0].share
        theirs = _by(rows, top)
        if theirs:
            yield _node("theme", "world of one artist", share, "long", theirs)
    yield from _kind(summary, "theme", [t for t in tagged if t[1].weight >= 0.2], 3, _bears)
    for group in summary.groups:
        share = sum(rows[r].plays for r in group.rows) / summary.plays
        yield _node("theme", group.name, round(min(1.0, share), 3), "long", group.rows)


def _heard(summary: Summary) -> list[int]:
    """Rows that were not mostly skipped, or all if there are no others."""
    every = range(len(summary.rows))
    return [p for p in every if summary.rows[p].skipped * 2 < summary.rows[p].plays] or [*every]


def _by(rows: Sequence[Row], artist: str) -> list[int]:
    return [place for place, row in enumerate(rows) if _is_by(row, artist)]


def _relations(nodes: Sequence[ReplyNode], summary: Summary) -> Iterator[ReplyRelation]:
    rows_of = {node.id: _rows_of(node, summary) for node in nodes}
    for one, node in enumerate(nodes):
        for other in nodes[one + 1 :]:
            yield from _relation(node, other, rows_of, summary)
    yield from _successions(nodes, summary)


def _rows_of(node: ReplyNode, summary: Summary) -> frozenset[int]:
    """All rows that bear a genre or artist; of another kind, those cited."""
    supports = {"genre": _bears, "artist": _is_by, "mood": _bears}.get(node.kind)
    if supports:
        return frozenset(p for p, row in enumerate(summary.rows) if supports(row, node.label))
    return frozenset(int(cited[1:]) - 1 for cited in node.evidence)


def _relation(
    one: ReplyNode, other: ReplyNode, rows_of: dict[str, frozenset[int]], summary: Summary
) -> Iterator[ReplyRelation]:
    """``within`` where one's rows are almost all the other's; else ``with`` where heard near."""
    mine, theirs = rows_of[one.id], rows_of[other.id]
    both = len(mine & theirs)
    kinds = {one.kind, other.kind}
    if (
        kinds <= {"genre", "artist"}
        and min(len(mine), len(theirs)) > 1
        and len(mine) != len(theirs)
    ):
        small, large = (one, other) if len(mine) < len(theirs) else (other, one)
        part = both / min(len(mine), len(theirs))
        if part >= WITHIN and large.kind == "genre":
            yield _related(small, large, "within", part)
            return
    if kinds & {"context", "era", "mood"} and kinds & {"genre", "artist"}:
        if both >= 2:
            yield _related(one, other, "with", both / len(mine | theirs))
        return
    if one.kind == other.kind and one.kind in ("genre", "artist"):
        near = sum(
            pair.sittings
            for pair in summary.together
            if (pair.one in mine and pair.other in theirs and pair.other not in mine)
            or (pair.other in mine and pair.one in theirs and pair.one not in mine)
        )
        if near >= 2:
            yield _related(one, other, "with", near / (near + summary.sittings))


def _successions(nodes: Sequence[ReplyNode], summary: Summary) -> Iterator[ReplyRelation]:
    """From the genre, or else the artist, that faded most to the one that grew most."""
    for kind, portions in (("genre", summary.tags), ("artist", summary.artists)):
        of = {key(portion.name): portion for portion in portions}
        known = [(n, of[key(n.label)]) for n in nodes if n.kind == kind and key(n.label) in of]
        if len(known) < 2 or summary.recent_plays == summary.plays:
            continue
        faded, was = min(known, key=lambda each: each[1].recent - each[1].older)
        grown, now = max(known, key=lambda each: each[1].recent - each[1].older)
        fall, rise = was.older - was.recent, now.recent - now.older
        if min(fall, rise) >= 0.1:
            yield _related(faded, grown, "leads_to", min(fall, rise))


def _related(one: ReplyNode, other: ReplyNode, kind: Relation, weight: float) -> ReplyRelation:
    return ReplyRelation(source=one.id, target=other.id, kind=kind, weight=round(weight, 3))
