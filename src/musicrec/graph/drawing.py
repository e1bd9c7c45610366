"""An interest graph as SVG: where the nodes lie, and the picture itself.

The picture has no colours, no size and no script of its own: classes (``node``, ``edge``, the kind,
the term) and ids (``n0``, ``n1``, …) are for the page's style. The same graph gives the same bytes.
"""

from __future__ import annotations

from html import escape
from unicodedata import east_asian_width

import numpy as np
import numpy.typing as npt

from musicrec.graph.schema import InterestGraph
from musicrec.graph.words import clean

Floats = npt.NDArray[np.float64]

#: Radius of a node of weight 0, and what weight 1 adds; heights and widths of a label, in px.
_LEAST_RADIUS, _MORE_RADIUS = 9, 34
_LETTER, _LINE, _LABEL = 6.9, 19, 22
_GAP, _MARGIN = 7, 16
_GOLDEN_ANGLE = np.pi * (3 - 5**0.5)


def visible(text: str, cap: int = 300) -> str:
    """``text`` for HTML, in an element or an attribute: escaped, and without unseen characters."""
    return escape(clean(text, cap) or "–")


def radii(graph: InterestGraph) -> Floats:
    """``(nodes,)``: the area grows with the weight."""
    weights = np.array([node.weight for node in graph.nodes], dtype=np.float64)
    return _LEAST_RADIUS + _MORE_RADIUS * np.sqrt(weights)


def layout(graph: InterestGraph) -> Floats:
    """``(nodes, 2)`` middles in px; no node or label covers another.

    Related nodes lie near each other, heavy ones in the middle; wider than high, as screens are.
    """
    num = len(graph.nodes)
    size = _sizes(graph)
    turn = np.arange(num) * _GOLDEN_ANGLE
    places = 70 * np.sqrt(np.arange(num) + 0.3)[:, None] * np.stack([np.cos(turn), np.sin(turn)], 1)
    pull = np.zeros((num, num))
    for edge in graph.edges:
        if edge.source != edge.target:
            pull[edge.source, edge.target] += edge.weight
            pull[edge.target, edge.source] += edge.weight
    for heat in np.linspace(18, 1, 250):
        away = places[:, None] - places[None]
        distance = np.sqrt((away**2).sum(-1)) + 1e-6
        push = 9_000 / distance**2 - 0.06 * pull * distance
        force = (away * (push / distance)[..., None]).sum(1) - 0.02 * places * [0.7, 1.3]
        length = np.sqrt((force**2).sum(-1, keepdims=True)) + 1e-9
        places += force / length * np.minimum(length, heat)
    return _apart(places, size)


def _sizes(graph: InterestGraph) -> Floats:
    """``(nodes, 2)``: width and height of a node with its label under it."""
    wide = np.array([_width(_short(node.label)) for node in graph.nodes], dtype=np.float64)
    across = 2 * radii(graph)
    return np.stack([np.maximum(across, wide), across + _LINE], 1) + _GAP


def _apart(places: Floats, size: Floats) -> Floats:
    """``places`` moved as little as it takes that no two boxes overlap."""
    num = len(places)
    need = (size[:, None] + size[None]) / 2
    order = np.arange(num)
    later = np.sign(order[:, None] - order)[..., None]
    for _ in range(3_000):
        away = places[:, None] - places[None]
        overlap = need - np.abs(away)
        meets = (overlap > 0.01).all(-1) & (order[:, None] != order)
        if not meets.any():
            break
        # Along the axis of the lesser overlap; of two in one place the later goes right and down.
        side = np.where(away != 0, np.sign(away), later)
        along = np.arange(2) == overlap.argmin(-1)[..., None]
        places = places + (side * along * meets[..., None] * overlap * 0.3).sum(1)
    return places


def _width(label: str) -> float:
    return _LETTER * sum(1.8 if east_asian_width(letter) in "WF" else 1 for letter in label)


def _short(label: str) -> str:
    return clean(label, _LABEL) or "–"


def svg(graph: InterestGraph) -> str:
    """The picture; each node a link to ``#i<place>``, where the page has its evidence."""
    if not graph.nodes:
        return '<svg viewBox="0 0 200 40" role="img"><text x="100" y="25">no interests</text></svg>'
    places, radius, size = layout(graph), radii(graph), _sizes(graph)
    low = (places - size / 2).min(0) - _MARGIN
    high = (places + size / 2).max(0) + _MARGIN
    places = places - low
    width, height = (high - low).round().astype(int).tolist()
    arrow = (
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="10" '
        'markerHeight="10" markerUnits="userSpaceOnUse" orient="auto">'
        '<path d="M0 0L8 4L0 8z"/></marker></defs>'
    )
    parts = [
        f'<svg viewBox="0 0 {width} {height}" role="group" aria-label="graph of interests">',
        arrow,
        *(_line(graph, number, places, radius) for number in range(len(graph.edges))),
        *(_node(graph, number, places, radius) for number in range(len(graph.nodes))),
        "</svg>",
    ]
    return "\n".join(parts)


def _line(graph: InterestGraph, number: int, places: Floats, radius: Floats) -> str:
    edge = graph.edges[number]
    start, end = places[edge.source], places[edge.target]
    length = float(np.hypot(*(end - start))) or 1.0
    step = (end - start) / length
    start, end = start + step * radius[edge.source], end - step * (radius[edge.target] + 2)
    kind = edge.kind.replace("_", "-")
    arrow = ' marker-end="url(#arrow)"' if edge.kind == "leads_to" else ""
    names = [visible(graph.nodes[place].label) for place in (edge.source, edge.target)]
    said = f"{names[0]} {edge.kind.replace('_', ' ')} {names[1]}: {edge.weight:.2f}"
    return (
        f'<line class="edge {kind} of{edge.source} of{edge.target}" '
        f'x1="{start[0]:.0f}" y1="{start[1]:.0f}" x2="{end[0]:.0f}" y2="{end[1]:.0f}" '
        f'stroke-width="{1 + 4 * edge.weight:.1f}"{arrow}><title>{said}</title></line>'
    )


def _node(graph: InterestGraph, number: int, places: Floats, radius: Floats) -> str:
    node = graph.nodes[number]
    (x, y), r = places[number], radius[number]
    # The label belongs under the circle, and both lie within the box that `layout` kept free.
    middle = y - _LINE / 2
    return (
        f'<a class="node {node.kind} {node.term}" id="n{number}" href="#i{number}" '
        f'aria-label="{visible(node.label)}, {node.kind}, {node.weight:.2f}">'
        f'<circle cx="{x:.0f}" cy="{middle:.0f}" r="{r:.0f}"/>'
        f'<text x="{x:.0f}" y="{middle + r + 14:.0f}">{escape(_short(node.label))}</text></a>'
    )
