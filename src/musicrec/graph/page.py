"""One HTML file that shows an interest graph: drawn, with the evidence of each node on hover.

It needs nothing else and asks nobody: no script at all, no font, no image, and a content policy
that forbids all of it, so that even a title that were not escaped could neither run nor call home.
Hovering is done by style rules; a click or Enter keeps a node's evidence in sight.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from datetime import datetime
from importlib import resources

from musicrec.graph.change import Change, Shift
from musicrec.graph.drawing import svg, visible
from musicrec.graph.schema import Evidence, InterestGraph, Node
from musicrec.graph.stored import StoredGraph

_KINDS = ("genre", "artist", "mood", "era", "context", "theme")


def page_of(
    stored: StoredGraph, dataset: str, *, since: tuple[StoredGraph, Change] | None = None
) -> str:
    """The page, as UTF-8 text.

    Args:
        dataset: its name, to be shown.
        since: an earlier version and what changed from it; None shows no change.
    """
    style = _style(len(stored.graph.nodes))
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    title = f"Interests of {visible(stored.user_id)}"
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="referrer" content="no-referrer">',
            f"<title>{title}</title>",
            f"<style>{style}</style>",
            "</head>",
            "<body>",
            _header(title, stored, dataset),
            "<main>",
            _view(stored.graph),
            _change(*since) if since else "",
            _table(stored.graph),
            "</main>",
            _footer(stored),
            "</body>",
            "</html>",
            "",
        ]
    )


def _style(num_nodes: int) -> str:
    """The style sheet, and for each node what its hovering shows."""
    rules = [resources.files("musicrec.graph").joinpath("page.css").read_text("utf-8")]
    for number in range(num_nodes):
        on = f".view:has(#n{number}:is(:hover, :focus-visible))"
        rules.append(f"{on} #i{number} {{ display: block; }}")
        rules.append(f"{on} .of{number} {{ opacity: .9; }}")
    return "\n".join(rules)


def _day(moment: datetime) -> str:
    return f"{moment:%d %B %Y}".lstrip("0")


def _header(title: str, stored: StoredGraph, dataset: str) -> str:
    until = f" to {_day(stored.valid_to)}" if stored.valid_to else ""
    state = "current" if stored.is_current else "superseded"
    return (
        f'<header><h1><bdi>{title}</bdi></h1><p class="quiet">dataset {visible(dataset)}, version '
        f"{stored.version} ({state}), valid from {_day(stored.valid_from)}{until}</p></header>"
    )


def _footer(stored: StoredGraph) -> str:
    by = f"{visible(stored.provider)}, {visible(stored.model)}"
    tokens = f"{stored.input_tokens:,} tokens in, {stored.output_tokens:,} out"
    cost = "" if stored.cost_usd is None else f", ${stored.cost_usd:.4f}"
    bill = "" if stored.provider == "local" else f"; {tokens}{cost}"
    return (
        f"<footer>Written by {by} on {_day(stored.created_at)}{bill}. Every interest rests on "
        "tracks of the listening; weights are shares of it, from 0 to 1.</footer>"
    )


def _view(graph: InterestGraph) -> str:
    shown = [kind for kind in _KINDS if any(node.kind == kind for node in graph.nodes)]
    legend = "".join(f'<li class="{kind}"><i></i>{kind}</li>' for kind in shown)
    lines = (
        "<li>solid ring: long-term</li><li>dashed ring: short-term</li>"
        "<li>line: heard together</li><li>dotted: a part of</li><li>arrow: leads to</li>"
    )
    return "\n".join(
        [
            '<div class="view">',
            f'<div class="card">{svg(graph)}<ul class="legend">{legend}{lines}</ul></div>',
            '<aside class="card panel" aria-live="polite">',
            '<p class="hint quiet">Point at an interest to see the tracks it rests on; click it '
            "to keep them here.</p>",
            *(_interest(node, number) for number, node in enumerate(graph.nodes)),
            "</aside>",
            "</div>",
        ]
    )


def _interest(node: Node, number: int) -> str:
    tracks = "".join(_track(cited) for cited in node.evidence)
    return (
        f'<section class="interest" id="i{number}"><h3><bdi>{visible(node.label)}</bdi></h3>'
        f'<p><span class="{node.kind} kind">{node.kind}</span> · {node.term}-term · '
        f"weight {node.weight:.2f}</p><ol>{tracks}</ol></section>"
    )


def _track(cited: Evidence) -> str:
    title = cited.title or cited.track_id
    by = f"<bdi>{visible(cited.artist)}</bdi> · " if cited.artist else ""
    last = _day(datetime.fromisoformat(cited.last_played_at))
    return (
        f"<li><bdi>{visible(title)}</bdi><span>{by}{cited.plays:,} "
        f"play{'' if cited.plays == 1 else 's'}, last {last}</span></li>"
    )


def _change(before: StoredGraph, change: Change) -> str:
    return "\n".join(
        [
            f"<h2>Since version {before.version}, {_day(before.valid_from)}</h2>",
            '<div class="changes">',
            f'<div class="card"><h3 class="more">Grew</h3>{_shifts(change.grew)}</div>',
            f'<div class="card"><h3 class="less">Faded</h3>{_shifts(change.faded)}</div>',
            "</div>",
        ]
    )


def _shifts(shifts: Sequence[Shift]) -> str:
    if not shifts:
        return '<p class="quiet">nothing</p>'
    lines = (
        f"<li><bdi>{visible(shift.label)}</bdi> "
        f'<span class="quiet">{shift.kind}, {said_of(shift)}</span></li>'
        for shift in shifts
    )
    return f"<ol>{''.join(lines)}</ol>"


def said_of(shift: Shift) -> str:
    """``0.10 → 0.35``, ``new, 0.35`` or ``gone, was 0.10``."""
    if shift.before is None:
        return f"new, {shift.after:.2f}"
    if shift.after is None:
        return f"gone, was {shift.before:.2f}"
    return f"{shift.before:.2f} → {shift.after:.2f}"


def _table(graph: InterestGraph) -> str:
    rows = "".join(
        f'<tr><td class="{node.kind} kind">{node.kind}</td><td><bdi>{visible(node.label)}</bdi>'
        f'</td><td><meter value="{node.weight:.3f}"></meter> {node.weight:.2f}</td>'
        f"<td>{node.term}-term</td><td>{_cited(node)}</td></tr>"
        for node in graph.nodes
    )
    return (
        '<h2>All interests</h2><div class="card table"><table><thead><tr><th>kind</th>'
        "<th>interest</th><th>weight</th><th>term</th><th>rests on</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )


def _cited(node: Node) -> str:
    names = [f"<bdi>{visible(cited.title or cited.track_id)}</bdi>" for cited in node.evidence[:3]]
    more = len(node.evidence) - len(names)
    return ", ".join(names) + (f" and {more} more" if more > 0 else "")
