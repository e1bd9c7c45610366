from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from graphs import ROADS, node
from musicrec.graph.change import change_between
from musicrec.graph.page import said_of
from musicrec.graph.schema import InterestGraph


def graph(**weights):
    nodes = [node("genre", label, weight, [ROADS]) for label, weight in weights.items()]
    return InterestGraph(nodes=tuple(nodes), edges=())


def labels(shifts):
    return [shift.label for shift in shifts]


def test_interests_grow_fade_come_and_go_the_greatest_shift_first():
    change = change_between(
        graph(rock=0.5, jazz=0.3, folk=0.2, funk=0.1), graph(jazz=0.35, folk=0.05, soul=0.4)
    )
    assert labels(change.grew) == ["soul", "jazz"]
    assert labels(change.faded) == ["rock", "folk", "funk"]
    assert [said_of(s) for s in change.grew] == ["new, 0.40", "0.30 → 0.35"]
    assert said_of(change.faded[0]) == "gone, was 0.50"


def test_a_small_shift_is_none():
    change = change_between(graph(rock=0.5), graph(rock=0.54))
    assert not change.grew + change.faded
    assert labels(change.stayed) == ["rock"]


def test_another_spelling_is_the_same_interest():
    before = InterestGraph(nodes=(node("genre", "trip-hop", 0.5, [ROADS]),), edges=())
    after = InterestGraph(nodes=(node("genre", "Trip Hop", 0.5, [ROADS]),), edges=())
    assert labels(change_between(before, after).stayed) == ["Trip Hop"]


def test_an_interest_that_came_to_stay_has_settled():
    before = InterestGraph(nodes=(node("genre", "jazz", 0.3, [ROADS], "short"),), edges=())
    after = InterestGraph(nodes=(node("genre", "jazz", 0.3, [ROADS], "long"),), edges=())
    change = change_between(before, after)
    assert labels(change.settled) == ["jazz"]
    assert not change.stayed


some = st.dictionaries(st.sampled_from(["rock", "jazz", "folk", "soul"]), st.floats(0, 1))


@given(some, some)
def test_every_interest_stands_in_one_place_and_what_grew_one_way_faded_the_other(one, other):
    there = change_between(graph(**one), graph(**other))
    back = change_between(graph(**other), graph(**one))
    every = there.grew + there.faded + there.settled + there.stayed
    assert sorted(labels(every)) == sorted(one.keys() | other.keys())
    assert sorted(labels(there.grew)) == sorted(labels(back.faded))
