from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphs import BLUE, DAY, EVENINGS, node, track, traits
from musicrec.graph.affinity import taste_of
from musicrec.graph.neighbours import Bearers
from musicrec.graph.schema import InterestGraph

TAGS, ARTISTS = ("trip hop", "jazz", "disco", "happy", "party"), ("Portishead", "Abba", None)

TRACKS = st.fixed_dictionaries(
    {
        "artist": st.sampled_from(ARTISTS),
        "tags": st.lists(st.sampled_from(TAGS), max_size=3, unique=True),
        "year": st.sampled_from((1976, 1995, 2013, None)),
        "energy": st.sampled_from((0.1, 0.6, 0.7, 0.9, None)),
        "valence": st.sampled_from((0.1, 0.6, None)),
    }
)
KINDS = (
    ("genre", "trip hop"),
    ("genre", "disco"),
    ("artist", "Portishead"),
    ("era", "1990s"),
    ("mood", "happy"),
    ("mood", "energetic"),
)
CITED = st.builds(
    track,
    st.sampled_from([f"T{row}" for row in range(8)]),
    st.sampled_from(ARTISTS),
    st.integers(1, 9),
)
NODES = st.builds(
    lambda kind, weight, cited: node(*kind, weight, [cited]),
    st.sampled_from(KINDS),
    st.sampled_from((0.01, 0.25, 1.0)),
    CITED,
)


@given(
    tracks=st.lists(TRACKS, min_size=1, max_size=12),
    nodes=st.lists(NODES, max_size=5),
    plays=st.lists(st.integers(0, 2), min_size=12, max_size=12),
    num=st.integers(0, 14),
)
def test_neighbours_are_the_tracks_of_greatest_affinity(tracks, nodes, plays, num):
    known = traits(*tracks)
    taste = taste_of(InterestGraph(nodes=tuple(nodes), edges=()), known, as_of=DAY)
    found = Bearers(known, np.array(plays[: len(tracks)])).nearest(taste, num).tolist()
    affinity = taste.affinity(np.arange(len(tracks)))
    cited = set(taste.cited.tolist())
    others = [row for row in range(len(tracks)) if row not in cited and affinity[row] > 0]
    best = sorted((affinity[row] for row in others), reverse=True)[:num]
    assert len(set(found)) == len(found)
    assert set(found) <= set(others)
    assert affinity[found].tolist() == pytest.approx(best, abs=1e-6)


def test_tracks_that_suit_equally_come_by_plays_then_by_row():
    known = traits(*[{"tags": ["jazz"]}] * 5, {"tags": ["disco"]})
    taste = taste_of(InterestGraph(nodes=(node("genre", "jazz", 1, [BLUE]),), edges=()), known)
    plays = np.array([1, 3, 1, 9, 3, 99])
    bearers = Bearers(known, plays)
    assert bearers.nearest(taste, 9).tolist() == [3, 1, 4, 0, 2]
    assert bearers.nearest(taste, 2).tolist() == [3, 1]


def test_the_tracks_that_a_graph_cites_are_not_their_own_neighbours():
    known = traits({"tags": ["jazz"]}, {"tags": ["jazz"]})
    graph = InterestGraph(nodes=(node("genre", "jazz", 1, [track("T0")]),), edges=())
    assert Bearers(known, np.zeros(2)).nearest(taste_of(graph, known), 5).tolist() == [1]


def test_a_graph_that_says_nothing_of_a_catalogue_has_no_neighbours():
    known = traits({"tags": ["disco"]}, {})
    taste = taste_of(EVENINGS, known, as_of=DAY + timedelta(days=9))
    assert Bearers(known, np.zeros(2)).nearest(taste, 5).tolist() == []


def test_plays_of_another_catalogue_are_refused():
    with pytest.raises(ValueError, match="3 plays are not of 2 tracks"):
        Bearers(traits({}, {}), np.zeros(3))
