from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphs import BLUE, DAY, EVENINGS, GLORY, ROADS, node, track, traits
from musicrec.graph.affinity import HALF_LIFE, TRUST, contexts_of, spoken_at, taste_of
from musicrec.graph.schema import Edge, InterestGraph

KNOWN = traits(
    {"artist": "Portishead", "tags": ["trip hop"], "year": 1997},
    {"artist": "Tricky", "tags": ["trip hop"], "year": 1995},
    {"artist": "Tricky", "tags": ["trip hop"], "year": 2013},
    {"artist": "Abba", "tags": ["disco"], "year": 1976},
    {},
)


def graph_of(*nodes, edges=()):
    return InterestGraph(nodes=nodes, edges=edges)


def affinity(graph, rows=None, known=KNOWN, **asked):
    rows = np.arange(len(known)) if rows is None else np.array(rows)
    return taste_of(graph, known, **asked).affinity(rows)


def test_the_more_interests_agree_the_higher_the_affinity():
    portishead, tricky_then, tricky_now, abba, unknown = affinity(EVENINGS)
    assert portishead > tricky_then > tricky_now > abba
    assert abba == unknown == 0


def test_agreements_unite_as_independent_reasons():
    graph = graph_of(node("genre", "trip hop", 0.25, [BLUE]), node("era", "1990s", 0.04, [BLUE]))
    genre, era = TRUST["genre"] * 0.5, TRUST["era"] * 0.2
    assert affinity(graph, [1])[0] == pytest.approx(1 - (1 - genre) * (1 - era))


def test_a_track_that_the_catalogue_lacks_has_none():
    assert affinity(EVENINGS, [-1, 0])[0] == 0


def test_a_cited_track_counts_without_any_metadata():
    known = traits({}, {})
    graph = graph_of(node("theme", "comfort listening", 1, [track("T1")]))
    assert affinity(graph, known=known).tolist() == pytest.approx([0, TRUST["track"]])


def test_an_interest_reaches_the_artists_of_its_evidence():
    graph = graph_of(node("theme", "album listening", 0.5, [track("X", "Abba")]))
    assert affinity(graph)[3] > 0
    assert affinity(graph)[:3].tolist() == [0, 0, 0]


def test_two_nodes_of_one_trait_count_once():
    one = graph_of(node("genre", "trip hop", 0.5, [BLUE]))
    two = graph_of(node("genre", "Trip-Hop", 0.5, [BLUE]), node("genre", "trip hop", 0.2, [BLUE]))
    assert affinity(one).tolist() == affinity(two).tolist()


def test_without_a_later_moment_nothing_fades():
    assert spoken_at(EVENINGS) == DAY
    assert affinity(EVENINGS, as_of=DAY).tolist() == affinity(EVENINGS).tolist()


@pytest.mark.parametrize("term", ["short", "long"])
def test_an_interest_loses_half_its_strength_in_its_half_life(term):
    graph = graph_of(node("genre", "disco", 0.5, [BLUE], term))
    later = DAY + timedelta(days=HALF_LIFE[term])
    assert affinity(graph, [3], as_of=later)[0] == pytest.approx(affinity(graph, [3])[0] / 2)


def test_a_moment_that_has_the_context_raises_what_goes_with_it():
    evening, morning = DAY.replace(hour=20), DAY.replace(hour=8)
    assert affinity(EVENINGS, [1], at=evening) > affinity(EVENINGS, [1])
    assert affinity(EVENINGS, [1], at=morning) == affinity(EVENINGS, [1])


def test_contexts_alone_say_nothing_of_a_track():
    assert not affinity(graph_of(node("context", "evening", 1, [track("X", "Abba")]))).any()


def test_every_hour_of_the_week_has_two_contexts():
    start = datetime(2024, 1, 1, tzinfo=UTC)
    assert all(len(contexts_of(start + timedelta(hours=hour))) == 2 for hour in range(168))


def test_a_graph_of_nothing_and_a_catalogue_of_nothing_are_no_error():
    assert affinity(graph_of()).tolist() == [0] * 5
    assert affinity(EVENINGS, known=traits({})).tolist() == [0]
    assert len(affinity(EVENINGS, [])) == 0


weights = st.floats(0, 1)


@given(st.lists(st.tuples(st.sampled_from(["trip hop", "disco", "pop"]), weights), max_size=6))
def test_affinity_stays_below_one_and_is_what_the_matches_say(pairs):
    graph = graph_of(*(node("genre", label, weight, [ROADS, GLORY]) for label, weight in pairs))
    taste = taste_of(graph, KNOWN)
    values = taste.affinity(np.arange(len(KNOWN)))
    assert ((values >= 0) & (values < 1)).all()
    for row, value in enumerate(values):
        assert bool(taste.matches(row)) == (value > 0)


def test_matches_name_the_strongest_interest_first_and_each_once():
    taste = taste_of(EVENINGS, KNOWN)
    matches = taste.matches(0)
    assert [index for index, _ in matches][:2] == [1, 0]
    assert len({index for index, _ in matches}) == len(matches)
    assert [a for _, a in matches] == sorted((a for _, a in matches), reverse=True)


def test_the_order_of_candidates_changes_nothing():
    rows = np.array([3, -1, 0, 0, 2, 4, 1])
    edges = (Edge(source=0, target=1, kind="with", weight=1.0),)
    graph = graph_of(*EVENINGS.nodes, edges=edges)
    alone = [float(affinity(graph, [row])[0]) for row in rows]
    assert affinity(graph, rows).tolist() == alone
