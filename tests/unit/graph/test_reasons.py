from __future__ import annotations

from graphs import DAY, EVENINGS, ROADS, node, track, traits
from musicrec.graph.affinity import taste_of
from musicrec.graph.reasons import reason_for
from musicrec.graph.schema import InterestGraph

KNOWN = traits(
    {"artist": "Tricky", "tags": ["trip hop"], "year": 1995},
    {"artist": "Tricky", "tags": ["trip hop"], "year": 2013},
    {"artist": "Portishead"},
    {"artist": "Abba", "tags": ["disco"]},
)


def reason(row, graph=EVENINGS, known=KNOWN, at=None):
    return reason_for(graph, taste_of(graph, known), row, at=at)


def said(row, graph=EVENINGS, known=KNOWN, at=None):
    found = reason(row, graph, known, at)
    return found and found.text


def test_era_and_evenings_are_said_where_one_track_bears_out_all_of_it():
    assert said(0) == "because of your 1990s trip hop evenings: Roads by Portishead (41 plays)"
    assert reason(0).nodes == (0, 2, 3)
    assert reason(0).evidence == (ROADS,)


def test_an_era_that_the_candidate_is_not_of_is_not_said():
    assert "1990s" not in said(1)


def test_a_context_of_another_time_of_day_is_not_said():
    morning = said(0, at=DAY.replace(hour=8))
    assert morning == (
        "because of your 1990s trip hop listening: Roads by Portishead (41 plays) and "
        "Teardrop by Massive Attack (9 plays)"
    )
    assert said(0, at=DAY) == said(0)


def test_an_artist_is_not_repeated_behind_each_title():
    at_noon = DAY.replace(hour=12)
    assert said(2, at=at_noon) == (
        "because of your Portishead listening: Roads (41 plays) and Glory Box (12 plays)"
    )


def test_nothing_in_the_graph_gives_no_reason():
    assert said(3) is None


def test_a_track_heard_before_is_reason_enough():
    graph = InterestGraph(
        nodes=(
            node("artist", "Portishead", 0.5, [track("t2", "Portishead", 41), ROADS]),
            node("theme", "comfort listening", 0.5, [track("t1", plays=1)]),
        ),
        edges=(),
    )
    assert said(2, graph) == "because you come back to it: 41 plays"
    assert said(1, graph) == "because you come back to it: 1 play"


def test_where_only_the_artist_agrees_only_that_artists_tracks_are_cited():
    graph = InterestGraph(
        nodes=(node("theme", "nostalgia", 0.9, [ROADS, track("Waterloo", "Abba", 50)]),), edges=()
    )
    assert said(3, graph) == "because of your nostalgia listening: Waterloo by Abba (50 plays)"


def test_every_track_named_is_evidence_of_every_interest_named():
    for row in range(len(KNOWN)):
        if found := reason(row):
            for place in found.nodes:
                assert set(found.evidence) <= set(EVENINGS.nodes[place].evidence)


def test_a_track_without_a_title_is_named_by_what_is_known():
    bare = track("x", "Tricky").model_copy(update={"title": None})
    graph = InterestGraph(nodes=(node("genre", "disco", 0.5, [bare]),), edges=())
    assert said(3, graph).startswith("because of your disco listening: a track of Tricky (")
