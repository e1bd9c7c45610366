"""Interest graphs for tests, and plays of which they speak."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
from sqlalchemy import text

from musicrec.database.engine import Dataset
from musicrec.graph.schema import Edge, Evidence, InterestGraph, Kind, Node, Term
from musicrec.graph.traits import Traits, traits_of

AUDIO = ("danceability", "energy", "valence", "acousticness", "instrumentalness", "liveness")

DAY = datetime(2014, 3, 2, 20, tzinfo=UTC)


def track(name: str, artist: str | None = None, plays: int = 5, days_ago: int = 0) -> Evidence:
    """A cited track whose id is its title in lower case."""
    return Evidence(
        track_id=name.lower(),
        title=name,
        artist=artist,
        plays=plays,
        last_played_at=(DAY - timedelta(days=days_ago)).isoformat(),
    )


def node(
    kind: Kind, label: str, weight: float, evidence: Iterable[Evidence], term: Term = "long"
) -> Node:
    return Node(kind=kind, label=label, weight=weight, term=term, evidence=tuple(evidence))


ROADS, GLORY = track("Roads", "Portishead", 41), track("Glory Box", "Portishead", 12, 3)
TEARDROP, BLUE = track("Teardrop", "Massive Attack", 9, 10), track("Blue in Green", "Miles Davis")

#: Somebody whose evenings are trip hop of the 1990s, and who lately tries jazz.
EVENINGS = InterestGraph(
    nodes=(
        node("genre", "trip hop", 0.6, [ROADS, GLORY, TEARDROP]),
        node("artist", "Portishead", 0.4, [ROADS, GLORY]),
        node("era", "1990s", 0.35, [ROADS, TEARDROP]),
        node("context", "evening", 0.3, [ROADS]),
        node("mood", "melancholic", 0.2, [GLORY]),
        node("genre", "jazz", 0.1, [BLUE], "short"),
    ),
    edges=(
        Edge(source=1, target=0, kind="within", weight=0.9),
        Edge(source=0, target=3, kind="with", weight=0.8),
        Edge(source=0, target=5, kind="leads_to", weight=0.3),
    ),
)


def traits(*tracks: dict[str, Any]) -> Traits:
    """Of tracks ``t0``, ``t1``, … of which the given columns are known."""
    types = {"artist": pa.string(), "tags": pa.list_(pa.string()), "year": pa.int32()}
    types |= dict.fromkeys(AUDIO, pa.float32())
    columns = {name: pa.array([t.get(name) for t in tracks], kind) for name, kind in types.items()}
    ids = pa.array([f"t{row}" for row in range(len(tracks))])
    return traits_of(pa.table({"track_id": ids, **columns}))


def store_graphs(dataset: Dataset, user_id: str, graphs: Iterable[InterestGraph]) -> None:
    """Versions of a user's graph, a day apart, the last current; a new user comes to be."""
    graphs = list(graphs)
    with dataset.engine.begin() as connection:
        user_key = connection.execute(
            text(
                "INSERT INTO users (user_id) VALUES (:user) ON CONFLICT (user_id) DO UPDATE SET "
                "user_id = excluded.user_id RETURNING user_key"
            ),
            {"user": user_id},
        ).scalar_one()
        for version, graph in enumerate(graphs, start=1):
            is_current = version == len(graphs)
            start = DAY + timedelta(days=version)
            connection.execute(
                text(
                    "INSERT INTO user_interest_graph (user_key, version, is_current, valid_from, "
                    "valid_to, graph, provider, model, prompt_hash, input_hash, input_tokens, "
                    "output_tokens, cost_usd) VALUES (:user_key, :version, :is_current, :start, "
                    ":end, CAST(:graph AS jsonb), 'anthropic', 'claude-haiku-5-5', 'p', :hash, "
                    "3012, 1204, 0.0009)"
                ),
                {
                    "user_key": user_key,
                    "version": version,
                    "is_current": is_current,
                    "start": start,
                    "end": None if is_current else start + timedelta(days=1),
                    "graph": graph.model_dump_json(),
                    "hash": str(version),
                },
            )
