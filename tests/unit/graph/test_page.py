from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphs import DAY, EVENINGS, ROADS, node, track
from musicrec.graph.change import change_between
from musicrec.graph.drawing import layout, radii, svg
from musicrec.graph.page import page_of
from musicrec.graph.schema import Edge, InterestGraph
from musicrec.graph.stored import StoredGraph

HOSTILE = (
    "</title></style><script src=//evil.example>alert('x')</script>\"onload=\"<img>\x1b[2J\u202e"
)


def stored(graph=EVENINGS, version=2, user="42"):
    return StoredGraph(
        user_id=user,
        version=version,
        is_current=version == 2,
        valid_from=DAY,
        valid_to=None if version == 2 else DAY,
        graph=graph,
        provider="anthropic",
        model="claude-haiku-5-5",
        prompt_hash="p",
        input_hash="i",
        input_tokens=3012,
        output_tokens=1204,
        cost_usd=0.0009,
        created_at=DAY,
    )


class Elements(HTMLParser):
    """Every element and attribute of a page, and that what was opened is closed."""

    VOID = ("meta", "circle", "path")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_every_interest_is_drawn_and_has_its_evidence_on_the_page():
    page = page_of(stored(), "mine")
    ids = {attributes.get("id") for _, attributes in Elements(page).found}
    for place, interest in enumerate(EVENINGS.nodes):
        assert {f"n{place}", f"i{place}"} <= ids
        section = re.search(rf'id="i{place}">(.*?)</section>', page, re.DOTALL)
        assert section
        for cited in interest.evidence:
            assert cited.title in section[1]
            assert f"{cited.plays} plays" in section[1]


def test_the_page_runs_nothing_and_asks_nobody():
    elements = Elements(page_of(stored(), "mine")).found
    assert not {"script", "link", "img", "iframe", "object", "base"} & {tag for tag, _ in elements}
    for _, attributes in elements:
        assert not [name for name in attributes if name.startswith("on") or name == "src"]
        assert all(url.startswith("#") for url in [attributes.get("href")] if url)
    style = page_of(stored(), "mine").split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_hostile_words_are_shown_and_never_obeyed():
    hostile = track("x", HOSTILE).model_copy(update={"title": HOSTILE, "track_id": HOSTILE})
    graph = InterestGraph(
        nodes=(node("artist", HOSTILE, 0.5, [hostile]), node("genre", HOSTILE, 0.1, [hostile])),
        edges=(Edge(source=0, target=1, kind="with", weight=1),),
    )
    after = InterestGraph(nodes=(node("genre", "jazz", 0.3, [hostile]),), edges=())
    change = change_between(graph, after)
    page = page_of(stored(graph, user=HOSTILE), HOSTILE, since=(stored(version=1), change))
    harmless = page_of(stored(_same_shape(graph)), "mine", since=(stored(version=1), change))
    kinds = [tag for tag, _ in Elements(page).found]
    assert kinds == [tag for tag, _ in Elements(harmless).found]
    assert not re.search("[\x1b\u202e]", page)
    assert "&lt;script src=//evil.example&gt;" in page


def _same_shape(graph):
    nodes = (node(n.kind, str(place), n.weight, [ROADS]) for place, n in enumerate(graph.nodes))
    return InterestGraph(nodes=tuple(nodes), edges=graph.edges)


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_title_and_artist_make_a_well_formed_page(title, artist):
    cited = ROADS.model_copy(update={"title": title, "artist": artist})
    graph = InterestGraph(nodes=(node("artist", artist, 0.5, [cited]),), edges=())
    tags = [tag for tag, _ in Elements(page_of(stored(graph), "mine")).found]
    assert tags.count("section") == 1
    assert "script" not in tags


def test_the_same_graph_gives_the_same_bytes():
    assert page_of(stored(), "mine") == page_of(stored(), "mine")


def test_what_grew_and_faded_stands_on_the_page():
    before = InterestGraph(nodes=(node("genre", "grunge", 0.5, [ROADS]),), edges=())
    since = (stored(before, version=1), change_between(before, EVENINGS))
    page = page_of(stored(), "mine", since=since)
    assert "Since version 1, 2 March 2014" in page
    assert "gone, was 0.50" in page
    assert "new, 0.60" in page


def test_a_graph_without_interests_has_a_page_too():
    assert "no interests" in page_of(stored(InterestGraph(nodes=(), edges=())), "mine")


def many(num):
    nodes = tuple(
        node("artist", f"An artist of some name {n}", 1 / (1 + n % 7), [ROADS]) for n in range(num)
    )
    edges = tuple(
        Edge(source=n, target=(n * 7 + 1) % num, kind="with", weight=0.5) for n in range(num)
    )
    return InterestGraph(nodes=nodes, edges=edges)


@pytest.mark.parametrize("num", [1, 2, 12, 40])
def test_no_node_covers_another(num):
    graph = many(num)
    places, radius = layout(graph), radii(graph)
    distance = np.hypot(*(places[:, None] - places[None]).transpose(2, 0, 1))
    np.fill_diagonal(distance, np.inf)
    assert (distance > radius[:, None] + radius[None]).all()
    assert np.isfinite(places).all()


def test_everything_lies_within_the_picture():
    picture = svg(many(40))
    wide, high = map(int, re.search(r'viewBox="0 0 (\d+) (\d+)"', picture).groups())
    for x, y, r in re.findall(r'cx="(-?\d+)" cy="(-?\d+)" r="(\d+)"', picture):
        assert 0 <= int(x) - int(r) < int(x) + int(r) <= wide
        assert 0 <= int(y) - int(r) < int(y) + int(r) <= high
