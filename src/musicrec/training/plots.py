"""Drawings of a run, as SVG: any browser shows them, MLflow's page too, and nothing draws them
but text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

import numpy as np
from torch import Tensor

Curve = Sequence[tuple[int, float]]

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 300, 64, 16, 36, 44
INK, FAINT, BLUE = "#333", "#ddd", "#2b6cb0"

#: Upper ends of the histogram's bars; the last goes to the end of the catalogue.
RANK_ENDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10_000, 100_000)


def learning_curve(curves: Mapping[str, Curve], title: str) -> str:
    """The loss above and a validation metric below, by step.

    Args:
        curves: one panel each, in their order; ``(step, value)``, gaps at what is not finite.
    """
    num_steps = max((step for curve in curves.values() for step, _ in curve), default=1)
    panels = [
        f'<g transform="translate(0 {place * HEIGHT})">{_panel(name, curve, num_steps, title)}</g>'
        for place, (name, curve) in enumerate(curves.items())
    ]
    return _page(panels, HEIGHT * len(panels))


def rank_histogram(ranks: Tensor, title: str) -> str:
    """Which share of the targets was ranked where; 1 is best."""
    counts, names = _counted(ranks.numpy())
    shares = counts / max(len(ranks), 1)
    top = _round_up(float(shares.max()))
    parts = [_title(title, "rank of the target", "share of targets"), *_ticks(0, top)]
    width = (WIDTH - LEFT - RIGHT) / len(names)
    for place, (name, share) in enumerate(zip(names, shares, strict=True)):
        x, y = LEFT + place * width, _y(float(share), 0, top)
        height = HEIGHT - BOTTOM - y
        middle = x + width / 2
        parts += [
            f'<rect x="{x + 2:.1f}" y="{y:.1f}" width="{width - 4:.1f}" height="{height:.1f}" '
            f'fill="{BLUE}"><title>{name}: {share:.2%}</title></rect>',
            _text(middle, y - 4, f"{share:.1%}", "middle"),
            _text(middle, HEIGHT - BOTTOM + 14, name, "middle"),
        ]
    return _page(parts, HEIGHT)


def _counted(ranks: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """How many ranks are in each bar, and the bars' names."""
    highest = int(ranks.max(initial=1))
    ends = [end for end in RANK_ENDS if end < highest]
    places = np.searchsorted(np.array(ends), ranks)
    starts = [1, *(end + 1 for end in ends)]
    names = [
        f"{low:,}" if low == high else f"{low:,}–{high:,}" if high else f"{low:,}+"
        for low, high in zip(starts, [*ends, None], strict=True)
    ]
    return np.bincount(places, minlength=len(names)), names


def _panel(name: str, curve: Curve, num_steps: int, title: str) -> str:
    values = [value for _, value in curve if math.isfinite(value)]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    parts = [_title(f"{title}: {name}", "step", name), *_ticks(low, high)]
    for step in (0, num_steps // 2, num_steps):
        parts.append(_text(_x(step, num_steps), HEIGHT - BOTTOM + 14, f"{step:,}", "middle"))
    points = [
        f"{_x(step, num_steps):.1f},{_y(value, low, high):.1f}"
        for step, value in curve
        if math.isfinite(value)
    ]
    parts.append(
        f'<polyline points="{" ".join(points)}" fill="none" stroke="{BLUE}" stroke-width="1.5"/>'
    )
    if len(points) == 1:  # a line of one point is invisible
        x, y = points[0].split(",")
        parts.append(f'<circle cx="{x}" cy="{y}" r="2.5" fill="{BLUE}"/>')
    return "".join(parts)


def _page(parts: Sequence[str], height: int) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" font-family="sans-serif" font-size="11">'
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>{"".join(parts)}</svg>\n'
    )


def _title(title: str, below: str, beside: str) -> str:
    middle = (TOP + HEIGHT - BOTTOM) / 2
    return (
        f'<text x="{LEFT}" y="20" font-size="13" fill="{INK}">{escape(title)}</text>'
        + _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, below, "middle")
        + f'<text transform="translate(14 {middle}) rotate(-90)" text-anchor="middle" '
        f'fill="{INK}">{escape(beside)}</text>'
    )


def _ticks(low: float, high: float) -> list[str]:
    parts = []
    for value in np.linspace(low, high, 5).tolist():
        y = _y(value, low, high)
        line = f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"'
        parts += [f'{line} stroke="{FAINT}"/>', _text(LEFT - 6, y + 4, f"{value:.3g}", "end")]
    return parts


def _text(x: float, y: float, text: str, anchor: str) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} fill="{INK}">{escape(text)}</text>'


def _x(step: int, num_steps: int) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * step / max(num_steps, 1)


def _y(value: float, low: float, high: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / (high - low)


def _round_up(share: float) -> float:
    return max(math.ceil(share * 10) / 10, 0.1)
