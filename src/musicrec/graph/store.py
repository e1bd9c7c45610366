"""What becomes of a listener, stored in one transaction: a new version of the graph, or why not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from psycopg.types.json import Jsonb

from musicrec.graph.calls import clean
from musicrec.graph.claims import Run
from musicrec.graph.schema import InterestGraph
from musicrec.graph.writing import Connection


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a user's current graph comes from; equal means that asking again is in vain."""

    provider: str
    model: str
    prompt_hash: str
    input_hash: str


def current_origins(connection: Connection, users: Sequence[int]) -> dict[int, Origin]:
    """Of those ``users`` who have a graph."""
    rows = connection.execute(
        "SELECT user_key, provider, model, prompt_hash, input_hash FROM user_interest_graph"
        " WHERE user_key = ANY(%s) AND is_current",
        (list(users),),
    )
    return {row[0]: Origin(*row[1:]) for row in rows}


def keep(
    connection: Connection, run: Run, user_key: int, input_hash: str, graph: InterestGraph
) -> bool:
    """Make ``graph`` the user's current one, close the one before, and settle the user's calls.

    Tokens and cost of a version are those of all answers that led to it.

    Returns:
        Whether it is stored; not where the user was forgotten meanwhile.
    """
    # Nobody can be forgotten, or given another version, between this line and the commit.
    user = connection.execute("SELECT FROM users WHERE user_key = %s FOR UPDATE", (user_key,))
    if user.fetchone() is None:
        return False
    closed = connection.execute(
        "UPDATE user_interest_graph SET is_current = false,"
        " valid_to = greatest(clock_timestamp(), valid_from)"
        " WHERE user_key = %s AND is_current RETURNING version, valid_to",
        (user_key,),
    ).fetchone()
    version, valid_from = (closed[0] + 1, closed[1]) if closed else (1, None)
    row = connection.execute(
        "INSERT INTO user_interest_graph (user_key, version, is_current, valid_from, graph,"
        " provider, model, prompt_hash, input_hash, input_tokens, output_tokens, cost_usd)"
        " SELECT %(user)s, %(version)s, true, coalesce(%(from)s, clock_timestamp()), %(graph)s,"
        " %(provider)s, %(model)s, %(prompt)s, %(input)s, coalesce(sum(input_tokens), 0),"
        " coalesce(sum(output_tokens), 0), sum(cost_usd)"
        " FROM graph_calls WHERE user_key = %(user)s AND provider = %(provider)s"
        " AND model = %(model)s AND prompt_hash = %(prompt)s AND input_hash = %(input)s"
        " AND NOT is_settled AND state = 'answered' RETURNING graph_id",
        {
            "user": user_key,
            "version": version,
            "from": valid_from,
            "graph": Jsonb(graph.model_dump(mode="json")),
            "provider": run.provider,
            "model": run.model,
            "prompt": run.prompt_hash,
            "input": input_hash,
        },
    ).fetchone()
    assert row is not None
    _derive(connection, row[0], graph)
    settle(connection, run, user_key, "done", input_hash)
    return True


def restore(connection: Connection, run: Run, inputs: Mapping[int, str]) -> set[int]:
    """Make earlier graphs of this very origin current again: nothing is paid for twice.

    Args:
        inputs: the input hash that each user would be asked with.

    Returns:
        The users who have theirs now.
    """
    rows = connection.execute(
        "SELECT DISTINCT ON (user_key) user_key, graph FROM user_interest_graph"
        " JOIN unnest(%s::bigint[], %s::text[]) AS asked (user_key, input_hash)"
        " USING (user_key, input_hash)"
        " WHERE provider = %s AND model = %s AND prompt_hash = %s"
        " ORDER BY user_key, version DESC",
        (list(inputs), list(inputs.values()), run.provider, run.model, run.prompt_hash),
    ).fetchall()
    graphs = {key: InterestGraph.model_validate(graph) for key, graph in rows}
    return {key for key, graph in graphs.items() if keep(connection, run, key, inputs[key], graph)}


def _derive(connection: Connection, graph_id: int, graph: InterestGraph) -> None:
    nodes = graph.nodes
    connection.execute(
        "INSERT INTO interest_nodes (graph_id, node, kind, label, weight, term)"
        " SELECT %s, * FROM unnest(%s::int[], %s::text[], %s::text[], %s::real[], %s::text[])",
        (
            *(graph_id, list(range(len(nodes))), [node.kind for node in nodes]),
            *([node.label for node in nodes], [node.weight for node in nodes]),
            [node.term for node in nodes],
        ),
    )
    edges = graph.edges
    connection.execute(
        "INSERT INTO interest_edges (graph_id, source, target, kind, weight)"
        " SELECT %s, * FROM unnest(%s::int[], %s::int[], %s::text[], %s::real[])",
        (
            *(graph_id, [edge.source for edge in edges], [edge.target for edge in edges]),
            *([edge.kind for edge in edges], [edge.weight for edge in edges]),
        ),
    )


def settle(
    connection: Connection,
    run: Run,
    user_key: int,
    state: str,
    input_hash: str | None = None,
    reason: str | None = None,
) -> None:
    """Say what became of a user, and give the claim back.

    Args:
        state: ``done``, ``empty`` (no plays), ``quarantined`` (asking again is in vain) or
            ``failed`` (the next run asks again).
        input_hash: of the summary that it is about.
        reason: why there is no graph.
    """
    if state != "failed":  # its answers so far are still worth reading
        connection.execute(
            "UPDATE graph_calls SET is_settled = true"
            " WHERE user_key = %s AND provider = %s AND model = %s AND NOT is_settled"
            " AND state = 'answered'",
            (user_key, run.provider, run.model),
        )
    connection.execute(
        "UPDATE graph_tasks SET state = %s, prompt_hash = %s, input_hash = %s, reason = %s,"
        " claimed_by = NULL, batch_id = NULL, changed_at = clock_timestamp()"
        " WHERE user_key = %s AND provider = %s AND model = %s",
        (
            *(state, run.prompt_hash, input_hash, None if reason is None else clean(reason)),
            *(user_key, run.provider, run.model),
        ),
    )


def release(connection: Connection, run: Run, users: Sequence[int]) -> None:
    """Give claims back with nothing done: unchanged, or the run has stopped."""
    connection.execute(
        "UPDATE graph_tasks SET claimed_by = NULL"
        " WHERE user_key = ANY(%s) AND provider = %s AND model = %s AND claimed_by = %s",
        (list(users), run.provider, run.model, run.run_id),
    )
