"""Interest graphs as the service reads them: from Postgres, beside a model's catalogue."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from sqlalchemy import insert, text

from graphs import BLUE, DAY, EVENINGS, node, store_graphs
from musicrec.cli.interests import StoredGraphs, interests_of, remembered_interests
from musicrec.database.engine import Dataset
from musicrec.database.tables import Track
from musicrec.errors import GraphError
from musicrec.graph.schema import InterestGraph
from musicrec.interactions.catalogue import Catalogue

pytestmark = pytest.mark.slow

JAZZ = InterestGraph(nodes=(node("genre", "jazz", 1, [BLUE]),), edges=())

#: The catalogue is in another order than the dataset, knows one track more and one less.
CATALOGUE = Catalogue(["evans", "new", "tricky"], [None] * 3, [None] * 3, np.array([1, 2, 3]))


@dataclass(frozen=True)
class Row:
    graph_id: int
    document: dict[str, Any]


@pytest.fixture
def graphs(dataset: Dataset) -> Dataset:
    tracks = [
        ("tricky", "Tricky", ["trip hop"]),
        ("abba", "Abba", ["disco"]),
        ("evans", "Bill Evans", ["jazz"]),
    ]
    with dataset.engine.begin() as connection:
        for key, (track_id, artist, tags) in enumerate(tracks, start=1):
            row = {"track_key": key, "track_id": track_id, "artist": artist, "tags": tags}
            connection.execute(insert(Track).values(row))
    store_graphs(dataset, "ann", [JAZZ, EVENINGS])
    return dataset


def test_stored_graphs_speak_of_the_catalogues_items(graphs):
    with graphs.engine.connect() as connection:
        first, second = connection.execute(
            text("SELECT graph_id, graph FROM user_interest_graph ORDER BY version")
        ).all()
    interests = remembered_interests(graphs, CATALOGUE)
    later = DAY + timedelta(days=1)
    jazz, evenings = (interests.of("ann", Row(*row), later) for row in (first, second))
    assert jazz is not None
    assert evenings is not None
    assert jazz.neighbours(9).tolist() == [1]
    assert evenings.neighbours(9).tolist() == [3, 1]
    assert (evenings.affinity(np.arange(4)) > 0).tolist() == [False, True, False, True]
    assert str(evenings.reason(3)).startswith("because of your trip hop evenings: Roads")
    assert interests.remembered("ann") == second.graph_id


def test_the_interests_of_one_listener_are_their_current_graph(graphs):
    ann = interests_of(graphs, "ann", CATALOGUE)
    assert ann is not None
    assert ann.neighbours(9).tolist() == [3, 1]
    assert interests_of(graphs, "nobody", CATALOGUE) is None


def test_the_page_of_a_graph_is_json_with_evidence_and_provenance(graphs):
    page = StoredGraphs(graphs)
    document = json.loads(json.dumps(page.current("ann")))
    assert document["user_id"] == "ann"
    assert document["version"] == 2
    assert document["valid_to"] is None
    assert document["nodes"][0]["label"] == "trip hop"
    assert document["nodes"][0]["evidence"][0] == {
        "track_id": "roads",
        "title": "Roads",
        "artist": "Portishead",
        "plays": 41,
        "last_played_at": DAY.isoformat(),
    }
    assert document["edges"][0] == {"source": 1, "target": 0, "kind": "within", "weight": 0.9}
    assert document["provenance"]["model"] == "claude-haiku-5-5"
    assert document["provenance"]["cost_usd"] == 0.0009


def test_every_version_has_its_heading(graphs):
    first, second = StoredGraphs(graphs).versions("ann")
    assert (first["version"], first["is_current"]) == (1, False)
    assert first["valid_to"] == second["valid_from"]
    assert "nodes" not in second


def test_nobody_has_no_page(graphs):
    page = StoredGraphs(graphs)
    assert page.current("nobody") is None
    assert page.versions("nobody") == []


def test_a_page_that_cannot_be_read_names_its_graph(graphs):
    with graphs.engine.begin() as connection:
        connection.execute(text("UPDATE user_interest_graph SET graph = '{}' WHERE is_current"))
    with pytest.raises(GraphError, match="graph version 2 of user 'ann' cannot be read"):
        StoredGraphs(graphs).current("ann")
