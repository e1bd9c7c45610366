from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from graphs import BLUE, DAY, EVENINGS, node, traits
from musicrec.cli.interests import RememberedInterests
from musicrec.errors import GraphError
from musicrec.graph.affinity import taste_of
from musicrec.graph.neighbours import Bearers
from musicrec.graph.schema import InterestGraph

KNOWN = traits(
    {"artist": "Portishead", "tags": ["trip hop"], "year": 1997},
    {"artist": "Tricky", "tags": ["trip hop"], "year": 1995},
    {"artist": "Bill Evans", "tags": ["jazz"], "year": 1961},
    {"artist": "Abba", "tags": ["disco"], "year": 1976},
)
ITEMS = np.array([0, 1, 2, 3, 4])
LATER = DAY + timedelta(hours=5)


@dataclass(frozen=True)
class Stored:
    graph_id: int
    document: dict[str, Any] | None


def stored(graph_id=7, graph=EVENINGS):
    return Stored(graph_id, graph.model_dump(mode="json"))


@pytest.fixture
def interests_of():
    return RememberedInterests(Bearers(KNOWN, np.arange(4)), remember=2)


def test_items_are_the_tracks_of_the_catalogue_and_padding_suits_nobody(interests_of):
    ann = interests_of.of("ann", stored(), LATER)
    padding, *affinity = ann.affinity(ITEMS).tolist()
    taste = taste_of(EVENINGS, KNOWN, as_of=DAY, at=LATER)
    assert padding == 0
    assert affinity == taste.affinity(np.arange(4)).tolist()
    assert ann.neighbours(2).tolist() == [1, 2]
    assert ann.neighbours(9).tolist() == [1, 2, 3]
    assert ann.reason(1).startswith("because of your ")
    assert ann.reason(4) is None


def test_a_remembered_graph_needs_no_document(interests_of):
    assert interests_of.remembered("ann") is None
    first = interests_of.of("ann", stored(), LATER)
    assert interests_of.remembered("ann") == 7
    assert interests_of.of("ann", Stored(7, None), LATER) is first


def test_another_graph_of_the_listener_takes_the_place_of_the_first(interests_of):
    jazz = InterestGraph(nodes=(node("genre", "jazz", 1, [BLUE]),), edges=())
    interests_of.of("ann", stored(), LATER)
    with pytest.raises(LookupError, match="graph 8 is not remembered"):
        interests_of.of("ann", Stored(8, None), LATER)
    assert interests_of.of("ann", stored(8, jazz), LATER).neighbours(9).tolist() == [3]
    assert interests_of.remembered("ann") == 8


def test_whoever_asked_longest_ago_gives_way(interests_of):
    for user in ("ann", "bob", "ann", "eve"):
        interests_of.of(user, stored(), LATER)
    assert [interests_of.remembered(user) for user in ("ann", "bob", "eve")] == [7, None, 7]


def test_a_forgotten_listener_is_not_remembered(interests_of):
    interests_of.of("ann", stored(), LATER)
    interests_of.forget("ann")
    interests_of.forget("nobody")
    assert interests_of.remembered("ann") is None


def test_interests_fade_by_whole_days(interests_of):
    def jazz(**later):
        return interests_of.of("ann", stored(), DAY + timedelta(**later)).affinity(ITEMS)[3]

    assert jazz(minutes=1) == jazz(minutes=30)
    assert jazz(days=1, minutes=1) == jazz(days=1, minutes=30) < jazz(minutes=1)


def test_interests_of_the_hour_count_for_more(interests_of):
    evening, night = (
        interests_of.of("ann", stored(), DAY + timedelta(minutes=minutes)).affinity(ITEMS)[2]
        for minutes in (30, 150)
    )
    assert evening > night


def test_a_graph_that_speaks_of_what_is_to_come_says_nothing(interests_of):
    assert interests_of.of("ann", stored(), DAY) is None
    assert interests_of.of("ann", stored(), DAY + timedelta(microseconds=1)) is not None


def test_a_graph_made_of_later_plays_says_nothing_though_it_cites_none_of_them(interests_of):
    made_of = stored().document | {"heard_until": LATER.isoformat()}
    assert interests_of.of("ann", Stored(7, made_of), LATER) is None
    after = LATER + timedelta(microseconds=1)
    assert interests_of.of("ann", Stored(7, made_of), after) is not None


def test_a_document_that_is_no_graph_is_refused_by_its_place(interests_of):
    document = stored().document | {"nodes": [{"kind": "tune"}]}
    with pytest.raises(GraphError, match=r"nodes\.0\.kind: .*; make it anew with"):
        interests_of.of("ann", Stored(7, document), LATER)
    assert interests_of.remembered("ann") is None
