"""The provider ``local``: the same bytes each time, and only what can be counted."""

import asyncio
import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from listening import LISTENER, Song, summary_of
from musicrec.graph.local import Local, reply_to
from musicrec.graph.prompt import SYSTEM, prompt_of
from musicrec.graph.provider import Ask
from musicrec.graph.reading import graph_of

GOLDEN = Path(__file__).parent / "local_graph.json"


def graph(*songs):
    summary = summary_of(*songs)
    return graph_of(reply_to(summary).model_dump_json(), summary)


def labels(*songs, kind=None):
    return [n.label for n in graph(*songs).nodes if kind in (None, n.kind)]


def test_the_graph_of_a_known_listener_is_this_one():
    """Regenerate by hand after a change of rules, with another ``local.MODEL``, and read it."""
    assert json.loads(graph(*LISTENER).model_dump_json()) == json.loads(GOLDEN.read_text())


def test_a_rerun_gives_the_same_bytes():
    summary = summary_of(*LISTENER)
    ask = Ask(summary, SYSTEM, prompt_of(summary), 2000)
    one, other = (asyncio.run(Local().ask(ask, timeout_seconds=1)) for _ in range(2))
    assert one == other
    assert one.text == json.dumps(one.raw["reply"], separators=(",", ":"), ensure_ascii=False)


days = st.lists(st.integers(0, 200), min_size=1, max_size=5, unique=True)
tags = st.sampled_from(["rock", "jazz", "sad", "live", "80s", "seen live", "Jazz-Rock"])
songs = st.lists(
    st.builds(
        Song,
        track_id=st.uuids().map(str),
        title=st.none() | st.text(max_size=30),
        artist=st.none() | st.sampled_from(["A", "B", "Ａ", "!!!", "C"]),
        tags=st.lists(tags, max_size=4),
        year=st.none() | st.integers(1950, 2024),
        days=days,
        skipped=days,
        album=st.none() | st.just("One"),
        hours=st.integers(0, 10),
    ),
    min_size=1,
    max_size=25,
)


@given(songs)
def test_every_history_gives_a_graph_that_is_accepted(songs):
    found = graph(*songs)
    assert found.nodes
    assert all(node.evidence for node in found.nodes)


def test_what_is_always_skipped_is_no_interest():
    assert "pop" not in labels(*LISTENER, kind="genre")


def test_what_came_up_lately_is_short_term():
    terms = {n.label: n.term for n in graph(*LISTENER).nodes}
    assert (terms["techno"], terms["trip hop"]) == ("short", "long")


def test_what_faded_leads_to_what_grew():
    found = graph(*LISTENER)
    (edge,) = [
        e for e in found.edges if e.kind == "leads_to" and found.nodes[e.source].kind == "genre"
    ]
    assert found.nodes[edge.source].label == "trip hop"
    assert found.nodes[edge.target].label in ("techno", "electronic")  # both grew alike


def test_without_tags_what_is_heard_together_is_a_theme():
    near = [Song(f"a{n}", days=(0, 1)) for n in range(3)]
    far = [Song(f"b{n}", days=(30, 31)) for n in range(4)]
    themes = [n for n in graph(*near, *far).nodes if n.label.startswith("around")]
    cited = [sorted(each.track_id for each in theme.evidence) for theme in themes]
    assert cited == [["b0", "b1", "b2", "b3"], ["a0", "a1", "a2"]]


def test_what_is_mostly_skipped_is_no_evidence():
    cited = {each.track_id for node in graph(*LISTENER).nodes for each in node.evidence}
    assert "t6" not in cited


def test_plays_long_past_weigh_next_to_nothing():
    old = Song("a", artist="Old", days=(0, 1, 2))
    new = Song("b", artist="New", days=(300, 301, 302))
    assert labels(old, new, kind="artist") == ["New"]
    assert labels(old, kind="artist") == ["Old"]


def test_a_listener_without_any_trait_has_a_part_of_the_day():
    spread = zip((5, 12, 21, 28, 35), (6, 12, 18, 17, 7), strict=True)
    once = [Song(f"t{day}", days=(day,), hours=hours) for day, hours in spread]
    (node,) = graph(Song("t", days=(0, 160)), *once).nodes
    assert node.kind == "context"
