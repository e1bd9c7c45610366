"""A stored graph on screen and as a page, by the command and in a real browser."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta

import pytest
from sqlalchemy import text

from browser import chromium, tab
from commands import command, done, finished
from graphs import DAY, EVENINGS, ROADS, node, store_graphs, track
from musicrec.cli.compose import compose
from musicrec.cli.show_graph import show_graph
from musicrec.errors import GraphError
from musicrec.graph.page import page_of
from musicrec.graph.schema import InterestGraph
from musicrec.graph.stored import current_graphs, version_of, versions_of
from musicrec.graph.traits import Trait, read_traits

pytestmark = pytest.mark.slow

BEFORE = InterestGraph(
    nodes=(
        node("genre", "grunge", 0.5, [track("Lithium", "Nirvana")]),
        node("genre", "trip hop", 0.2, [ROADS]),
    ),
    edges=(),
)


@pytest.fixture
def graphs(dataset):
    store_graphs(dataset, "ann", [BEFORE, EVENINGS])
    store_graphs(dataset, "bob", [EVENINGS])
    with dataset.engine.begin() as connection:
        connection.execute(text("INSERT INTO users (user_id) VALUES ('eve')"))
    return dataset


def test_versions_are_read_as_they_were_stored(graphs):
    first, second = versions_of(graphs, "ann")
    assert (first.graph, second.graph) == (BEFORE, EVENINGS)
    assert (first.is_current, second.is_current) == (False, True)
    assert first.valid_to == second.valid_from == DAY + timedelta(days=2)
    assert (second.input_tokens, second.cost_usd) == (3012, 0.0009)
    assert version_of([first, second], 1) is first


def test_current_graphs_are_read_for_many_at_once(graphs):
    found = current_graphs(graphs, ["ann", "bob", "eve", "nobody"])
    assert {user: stored.version for user, stored in found.items()} == {"ann": 2, "bob": 1}


def test_who_has_no_graph_is_told_how_to_get_one(graphs):
    with pytest.raises(GraphError, match=r"generate_interest_graph.py user=eve"):
        versions_of(graphs, "eve")
    with pytest.raises(GraphError, match=r"has no user 'an'$"):  # and no other user is named
        versions_of(graphs, "an")
    with pytest.raises(GraphError, match="no graph version 3, versions 1 to 2"):
        version_of(versions_of(graphs, "ann"), 3)


def test_a_damaged_graph_is_one_line(graphs):
    with graphs.engine.begin() as connection:
        connection.execute(text("UPDATE user_interest_graph SET graph = '{\"nodes\": 3}'"))
    with pytest.raises(GraphError, match=r"version 1 of user 'bob' cannot be read: nodes: ") as e:
        versions_of(graphs, "bob")
    assert "\n" not in str(e.value)


def test_traits_are_read_in_the_order_asked_for(dataset):
    with dataset.engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO tracks (track_id, artist, tags, released_on, energy) VALUES "
                "('a', 'Björk', ARRAY['Trip-Hop', NULL], '1995-06-13', 0.9), "
                "('b', NULL, NULL, NULL, NULL), "
                "('c', 'Abba', ARRAY[]::text[], NULL, NULL)"
            )
        )
    known = read_traits(dataset, ["c", "nix", "a"])
    assert list(known.track_ids) == ["c", "nix", "a"]
    assert known.starts.tolist() == [0, 1, 1, 5]
    assert {Trait("genre", "triphop"), Trait("era", "1990s")} <= set(known.column)
    assert len(read_traits(dataset)) == 3
    assert len(read_traits(dataset, [])) == 0


def test_the_command_prints_the_graph_and_writes_the_page(graphs, tmp_path):
    out = done(
        command("show_interest_graph", "--user-id", "ann", f"dataset={graphs.name}", cwd=tmp_path)
    )
    assert "interests of user ann, version 2, 2014-03-04" in out
    assert "trip hop" in out
    assert "Roads by Portishead (41)" in out
    assert "grew: trip hop (genre), 0.20 → 0.60" in out
    assert "faded: grunge (genre), gone, was 0.50" in out
    assert "by anthropic claude-haiku-5-5, $0.0009" in out
    assert "Since version 1" in (tmp_path / "interest_graph.html").read_text()


def test_an_earlier_version_is_shown_as_such_and_no_page_where_none_is_wanted(
    graphs, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    settings = ["user=ann", f"dataset={graphs.name}", "version=1", "output=null"]
    show_graph(compose("show_graph", settings))
    assert "version 1 (superseded)" in capsys.readouterr().out
    assert not list(tmp_path.glob("*.html"))


def test_a_mistake_is_one_line(graphs, tmp_path):
    code, _, err = finished(
        command("show_interest_graph", "user=eve", f"dataset={graphs.name}", cwd=tmp_path)
    )
    assert code == 2
    assert err.startswith("error: user 'eve' of dataset")
    assert len(err.strip().splitlines()) == 1


SHOWN = "[...document.querySelectorAll('.interest')].filter(e => e.offsetHeight).map(e => e.id)"


def test_in_a_browser_evidence_appears_on_hover_and_stays_on_click(graphs, tmp_path):
    program = chromium()
    if program is None:
        pytest.skip("no Chromium here (Debian: apt-get install chromium)")
    hostile = track("x", "A").model_copy(
        update={"title": "<script>document.title='owned'</script><img src=http://127.0.0.1:9/x>"}
    )
    graph = InterestGraph(
        nodes=(*EVENINGS.nodes, node("genre", "ska", 0.1, [hostile])), edges=EVENINGS.edges
    )
    store_graphs(graphs, "dan", [graph])
    (stored,) = versions_of(graphs, "dan")
    (tmp_path / "interest_graph.html").write_text(page_of(stored, graphs.name), "utf-8")
    asyncio.run(_look(program, tmp_path, num_nodes=len(graph.nodes)))


async def _look(program, folder, num_nodes):
    async with tab(program, folder / "profile") as page:
        await page.open(folder / "interest_graph.html")
        assert await page.value("document.title") == "Interests of dan"
        assert await page.value(SHOWN) == []
        for place in range(num_nodes):
            await page.point_at(f"#n{place} circle")
            assert await page.value(SHOWN) == [f"i{place}"]
        assert "<script>" in await page.value(
            f"document.querySelector('#i{num_nodes - 1}').innerText"
        )
        await page.point_at("h1")
        assert await page.value(SHOWN) == []
        await page.value("document.querySelector('#n1').focus({focusVisible: true})")
        assert await page.value(SHOWN) == ["i1"]
        await page.value("document.querySelector('#n2').dispatchEvent(new MouseEvent('click'))")
        await page.value("document.activeElement.blur()")
        assert await page.value(SHOWN) == ["i2"]
        light = await page.value("getComputedStyle(document.body).backgroundColor")
        dark = {"name": "prefers-color-scheme", "value": "dark"}
        await page.send("Emulation.setEmulatedMedia", features=[dark])
        assert await page.value("getComputedStyle(document.body).backgroundColor") != light
        assert page.said == []
        assert [url for url in page.requested if not re.match("file:", url)] == []
