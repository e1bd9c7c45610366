"""Which run works on which listener: claims that end with their run, however it ends.

A run holds an advisory lock of its id in its writer's session, and the server lets go of it when
the process is gone, by ``kill -9`` too. A claim whose run holds none is free. So nothing has to be
renewed, nothing expires too early, and a run that is started again finds all that its predecessor
left.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from musicrec.graph.writing import Connection


@dataclass(frozen=True, slots=True)
class Run:
    """A process that asks one model, and what its claims are told apart by."""

    run_id: int
    provider: str
    model: str
    prompt_hash: str


@dataclass(frozen=True, slots=True)
class Task:
    """A listener that this run has claimed, as the last run left it.

    Attributes:
        state: see ``GraphTask``; it is about ``input_hash`` and ``prompt_hash``.
        reason: why there is no graph, where there is none.
    """

    user_key: int
    state: str
    prompt_hash: str | None
    input_hash: str | None
    reason: str | None


def begin(
    connection: Connection,
    provider: str,
    model: str,
    prompt_hash: str,
    mode: str,
    max_cost_usd: Decimal | None,
) -> Run:
    """A new run; from here on it counts as living, until the connection is closed."""
    row = connection.execute(
        "INSERT INTO graph_runs (provider, model, prompt_hash, mode, max_cost_usd)"
        " VALUES (%s, %s, %s, %s, %s) RETURNING run_id, current_schema",
        (provider, model, prompt_hash, mode, max_cost_usd),
    ).fetchone()
    assert row is not None
    run_id, schema = row
    connection.execute("SELECT pg_advisory_lock(%s::int, %s::int)", (_class(schema), run_id))
    return Run(run_id, provider, model, prompt_hash)


def finish(connection: Connection, run: Run, outcome: str) -> None:
    """Give every claim back, and say how it went."""
    for table in ("graph_tasks", "graph_batches"):
        connection.execute(
            f"UPDATE {table} SET claimed_by = NULL WHERE claimed_by = %s",  # noqa: S608
            (run.run_id,),
        )
    connection.execute(
        "UPDATE graph_runs SET finished_at = clock_timestamp(), outcome = %s WHERE run_id = %s",
        (outcome, run.run_id),
    )


def living(connection: Connection) -> list[int]:
    """Ids of the runs whose process lives, in this dataset."""
    (schema,) = connection.execute("SELECT current_schema").fetchone() or ("",)
    rows = connection.execute(
        "SELECT objid::bigint FROM pg_locks WHERE locktype = 'advisory' AND granted"
        " AND classid = %s AND objsubid = 2"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        (_class(schema),),
    )
    return [row[0] for row in rows]


def claim(connection: Connection, run: Run, users: Sequence[int]) -> list[Task]:
    """Claim those of ``users`` on whom no living run works, and who wait for no batch.

    Returns:
        The claimed ones, by rising key.
    """
    values = {"users": list(users), "provider": run.provider, "model": run.model}
    connection.execute(
        "INSERT INTO graph_tasks (user_key, provider, model, state)"
        " SELECT user_key, %(provider)s, %(model)s, 'new' FROM users"
        " WHERE user_key = ANY(%(users)s) ORDER BY user_key ON CONFLICT DO NOTHING",
        values,
    )
    rows = connection.execute(
        "SELECT user_key, state, prompt_hash, input_hash, reason, claimed_by FROM graph_tasks"
        " WHERE user_key = ANY(%(users)s) AND provider = %(provider)s AND model = %(model)s"
        " AND batch_id IS NULL ORDER BY user_key FOR UPDATE SKIP LOCKED",
        values,
    ).fetchall()
    # Asked after the rows are locked: a run holds its lock before it claims anything.
    alive = set(living(connection)) if any(row[5] for row in rows) else set()
    tasks = [Task(*row[:5]) for row in rows if row[5] not in alive or row[5] == run.run_id]
    connection.execute(
        "UPDATE graph_tasks SET claimed_by = %(run)s"
        " WHERE user_key = ANY(%(users)s) AND provider = %(provider)s AND model = %(model)s",
        values | {"users": [task.user_key for task in tasks], "run": run.run_id},
    )
    return tasks


def next_users(connection: Connection, after: int, limit: int) -> list[int]:
    """Keys of the next ``limit`` listeners, by rising key."""
    rows = connection.execute(
        "SELECT user_key FROM users WHERE user_key > %s ORDER BY user_key LIMIT %s", (after, limit)
    )
    return [row[0] for row in rows]


def _class(schema: str) -> int:
    """Advisory locks belong to a database, and a dataset is one schema of it."""
    return zlib.crc32(f"musicrec graph runs of {schema}".encode()) & 0x7FFFFFFF
