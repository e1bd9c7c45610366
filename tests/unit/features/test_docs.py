"""The tables of ``docs/features.md`` are the definitions, row by row."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from musicrec.features import context
from musicrec.features.views import STORED

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "features.md").read_text()


def table(heading: str) -> list[list[str]]:
    """The cells of the first table under a heading, without its head."""
    section = re.split(r"^#+ ", PAGE.split(f"# {heading}\n")[1], flags=re.MULTILINE)[0]
    rows = re.findall(r"^\|(.+)\|$", section, flags=re.MULTILINE)
    return [[cell.strip() for cell in row.split("|")] for row in rows[2:]]


def days(span: object, otherwise: str) -> str:
    return otherwise if span is None else f"{span.days} days"


def test_every_view_has_its_line():
    rows = [
        [
            f"`{view.name}`",
            ", ".join(view.entities),
            days(view.window, "none"),
            days(view.ttl, "for ever"),
            view.meaning,
        ]
        for view in STORED
    ]
    *stored, on_demand = table("Views")
    assert stored == rows
    assert on_demand[0] == f"`{context.NAME}`"


DEFINED = {
    **{
        view.name: [
            [f"`{f.name}`", f.unit, f.meaning, "never" if f.null is None else f.null]
            for f in view.features
        ]
        for view in STORED
    },
    context.NAME: [[f"`{name}`", *said] for name, said in context.FEATURES.items()],
}


@pytest.mark.parametrize("view", DEFINED)
def test_every_feature_has_its_line(view):
    assert [cells[:-1] for cells in table(f"`{view}`")] == DEFINED[view]


@pytest.mark.parametrize("view", DEFINED)
def test_every_example_is_a_value_the_unit_allows(view):
    for name, unit, _, _, example in table(f"`{view}`"):
        low, high = {"0..1": (0, 1), "0 or 1": (0, 1), "-1..1": (-1, 1)}.get(unit, (-60, 1e6))
        assert low <= float(example) <= high, name
