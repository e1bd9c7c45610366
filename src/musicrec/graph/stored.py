"""Interest graphs as they lie in Postgres: the current one of a user, and all there were."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import ValidationError
from sqlalchemy import RowMapping, text

from musicrec.database.engine import Dataset
from musicrec.errors import GraphError
from musicrec.graph.schema import Evidence, InterestGraph


@dataclass(frozen=True, slots=True)
class StoredGraph:
    """One version of a user's graph, with its provenance.

    Attributes:
        version: 1 is the user's first.
        valid_to: None while it is current.
        cost_usd: None where the price was not known.
    """

    user_id: str
    version: int
    is_current: bool
    valid_from: datetime
    valid_to: datetime | None
    graph: InterestGraph
    provider: str
    model: str
    prompt_hash: str
    input_hash: str
    input_tokens: int
    output_tokens: int
    cost_usd: float | None
    created_at: datetime


_COLUMNS = """
    u.user_id, g.version, g.is_current, g.valid_from, g.valid_to, g.graph, g.provider, g.model,
    g.prompt_hash, g.input_hash, g.input_tokens, g.output_tokens, g.cost_usd, g.created_at
"""
_GRAPHS = f"SELECT {_COLUMNS} FROM user_interest_graph g JOIN users u USING (user_key)"  # noqa: S608


def current_graphs(dataset: Dataset, user_ids: Iterable[str]) -> dict[str, StoredGraph]:
    """The current graph of each of ``user_ids`` that has one."""
    rows = _rows(dataset, "u.user_id = ANY(:ids) AND g.is_current", {"ids": list(user_ids)})
    return {graph.user_id: graph for graph in rows}


def versions_of(dataset: Dataset, user_id: str) -> list[StoredGraph]:
    """Every version of a user's graph, the first first; the last is the current one.

    Raises:
        GraphError: the dataset has no such user, or the user no graph; the message says how to
            make one.
    """
    stored = stored_versions(dataset, user_id)
    if not stored:
        raise _missing(dataset, user_id)
    return stored


def stored_versions(dataset: Dataset, user_id: str) -> list[StoredGraph]:
    """As ``versions_of``; empty for a user who has no graph, or whom the dataset does not know."""
    return _rows(dataset, "u.user_id = :user", {"user": user_id})


def version_of(versions: list[StoredGraph], version: int) -> StoredGraph:
    """The one of that number.

    Raises:
        GraphError: there is none.
    """
    for stored in versions:
        if stored.version == version:
            return stored
    first, last = versions[0].version, versions[-1].version
    known = f"only version {first}" if first == last else f"versions {first} to {last}"
    raise GraphError(f"user {versions[0].user_id!r} has no graph version {version}, {known}")


def _rows(dataset: Dataset, where: str, values: Mapping[str, Any]) -> list[StoredGraph]:
    query = text(f"{_GRAPHS} WHERE {where} ORDER BY u.user_id, g.version")
    with dataset.engine.connect() as connection:
        return [_stored(row) for row in connection.execute(query, values).mappings()]


def _stored(row: RowMapping) -> StoredGraph:
    graph = graph_in(row["graph"], f"graph version {row['version']} of user {row['user_id']!r}")
    cost = row["cost_usd"]
    return StoredGraph(**{**row, "graph": graph, "cost_usd": None if cost is None else float(cost)})


def graph_in(document: Mapping[str, Any], name: str) -> InterestGraph:
    """The graph of a stored document; what several nodes cite is held once.

    Args:
        document: of ``user_interest_graph.graph``.
        name: what to call it in an error.

    Raises:
        GraphError: it is no graph.
    """
    try:
        graph = InterestGraph.model_validate(document)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in problem["loc"])
        raise GraphError(
            f"{name} cannot be read: {place}: {problem['msg']}; make it anew with "
            "generate_interest_graph.py"
        ) from error
    once: dict[Evidence, Evidence] = {}
    nodes = (
        node.model_copy(update={"evidence": tuple(once.setdefault(e, e) for e in node.evidence)})
        for node in graph.nodes
    )
    return graph.model_copy(update={"nodes": tuple(nodes)})


def _missing(dataset: Dataset, user_id: str) -> GraphError:
    with dataset.engine.connect() as connection:
        known = connection.execute(
            text("SELECT EXISTS (SELECT FROM users WHERE user_id = :user)"), {"user": user_id}
        ).scalar_one()
        if known:
            return GraphError(
                f"user {user_id!r} of dataset {dataset.name!r} has no interest graph yet; make it "
                f"with `python scripts/generate_interest_graph.py user={user_id} "
                f"dataset={dataset.name}`"
            )
    # No near ones are named: they would be other people.
    return GraphError(f"dataset {dataset.name!r} has no user {user_id!r}")
