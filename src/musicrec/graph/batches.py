"""Batches as Postgres remembers them: intended, submitted, ingested; or abandoned.

A batch is stored with its calls before it is handed over. Its listeners wait for it (state
``batched``) whoever made it, and any later run fetches its results. It is ``ingested`` once none of
them waits any more, so that a crash amid the ingestion only repeats what changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from pydantic import TypeAdapter

from musicrec.graph.calls import Reply, Round, clean
from musicrec.graph.claims import Run, living
from musicrec.graph.summary import Summary
from musicrec.graph.writing import Connection

_SUMMARY = TypeAdapter(Summary)


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch that is not over.

    Attributes:
        name: ours, by which a provider finds it.
        provider_batch: the provider's id; None while it is not known to have been created.
        created: unix seconds, when it was intended.
        is_own: whether this run has made it, and keeps its money reserved.
    """

    batch_id: int
    name: str
    provider_batch: str | None
    created: float
    is_own: bool


@dataclass(frozen=True, slots=True)
class Question:
    """A call to be made in a batch."""

    user_key: int
    summary: Summary
    round: Round
    prompt: str
    reserved: int
    reserved_usd: Decimal | None


@dataclass(frozen=True, slots=True)
class Waiting:
    """A call of a batch whose listener still waits for it.

    Attributes:
        reply: None where there is none.
        tries: of this round, this call among them.
        reserved: nanodollars.
    """

    call_id: int
    user_key: int
    round: Round
    summary: Summary
    reply: Reply | None
    tries: int
    reserved: int
    cost: int


def intend(connection: Connection, run: Run, name: str, questions: Sequence[Question]) -> Batch:
    """Store a batch that is about to be handed over."""
    batch_id, created = connection.execute(
        "INSERT INTO graph_batches (name, provider, model, prompt_hash, state, claimed_by,"
        " num_calls) VALUES (%s, %s, %s, %s, 'intended', %s, %s)"
        " RETURNING batch_id, extract(epoch FROM clock_timestamp())::float8",
        (name, run.provider, run.model, run.prompt_hash, run.run_id, len(questions)),
    ).fetchone() or (0, 0.0)
    connection.execute(
        "INSERT INTO graph_calls (user_key, run_id, batch_id, provider, model, prompt_hash,"
        " input_hash, summary, round, state, reserved_usd, asked_at)"
        " SELECT u, %s, %s, %s, %s, %s, h, s::json, r, 'asked', c, clock_timestamp()"
        " FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::text[], %s::numeric[])"
        " AS q (u, h, s, r, c)"
        " JOIN users ON user_key = u FOR KEY SHARE OF users",
        (
            *(run.run_id, batch_id, run.provider, run.model, run.prompt_hash),
            [question.user_key for question in questions],
            [question.summary.input_hash for question in questions],
            [question.summary.canonical for question in questions],
            [question.round for question in questions],
            [question.reserved_usd for question in questions],
        ),
    )
    connection.execute(
        "UPDATE graph_tasks SET state = 'batched', batch_id = %s, claimed_by = NULL,"
        " changed_at = clock_timestamp()"
        " WHERE user_key = ANY(%s) AND provider = %s AND model = %s",
        (batch_id, [question.user_key for question in questions], run.provider, run.model),
    )
    close(connection, run)
    return Batch(batch_id, name, None, created, True)


def known(connection: Connection, run: Run) -> list[str]:
    """The provider's ids of all batches that are not being looked for."""
    rows = connection.execute(
        "SELECT provider_batch FROM graph_batches"
        " WHERE provider = %s AND provider_batch IS NOT NULL",
        (run.provider,),
    )
    return [row[0] for row in rows]


def custom_ids(connection: Connection, batch_id: int) -> dict[int, str]:
    """What each user's call of a batch is called at the provider."""
    rows = connection.execute(
        "SELECT user_key, call_id FROM graph_calls WHERE batch_id = %s", (batch_id,)
    )
    return {user_key: f"c{call_id}" for user_key, call_id in rows}


def submitted(connection: Connection, batch_id: int, provider_batch: str) -> None:
    """Store the provider's id."""
    connection.execute(
        "UPDATE graph_batches SET state = 'submitted', provider_batch = %s WHERE batch_id = %s",
        (provider_batch, batch_id),
    )


def abandon(connection: Connection, batch_id: int, reason: str) -> list[int]:
    """Take a batch back that was never created; its listeners, whom the next run asks for."""
    connection.execute(
        "UPDATE graph_batches SET state = 'abandoned', claimed_by = NULL,"
        " ended_at = clock_timestamp() WHERE batch_id = %s",
        (batch_id,),
    )
    connection.execute(
        "UPDATE graph_calls SET state = 'failed', problem = %s, ended_at = clock_timestamp(),"
        " is_settled = true, cost_usd = 0 WHERE batch_id = %s AND state = 'asked'",
        (clean(reason), batch_id),
    )
    rows = connection.execute(
        "UPDATE graph_tasks SET state = 'failed', batch_id = NULL, reason = %s,"
        " changed_at = clock_timestamp() WHERE batch_id = %s RETURNING user_key",
        (clean(reason), batch_id),
    )
    return [row[0] for row in rows]


def take(connection: Connection, run: Run) -> list[Batch]:
    """Claim the batches that are not over and that no living run looks after, oldest first."""
    rows = connection.execute(
        "SELECT batch_id, name, provider_batch, extract(epoch FROM created_at)::float8,"
        " claimed_by FROM graph_batches WHERE provider = %s AND model = %s"
        " AND state IN ('intended', 'submitted') ORDER BY batch_id FOR UPDATE SKIP LOCKED",
        (run.provider, run.model),
    ).fetchall()
    alive = set(living(connection))
    taken = [Batch(r[0], r[1], r[2], r[3], is_own=False) for r in rows if r[4] not in alive]
    connection.execute(
        "UPDATE graph_batches SET claimed_by = %s WHERE batch_id = ANY(%s)",
        (run.run_id, [batch.batch_id for batch in taken]),
    )
    return taken


def unanswered(connection: Connection, batch_id: int, may_be_billed: bool) -> None:
    """A batch is over: of whatever call it said nothing, nothing will come."""
    connection.execute(
        "UPDATE graph_calls SET state = 'failed', is_settled = true, may_be_billed = %s,"
        " ended_at = clock_timestamp(), problem = 'the batch ended without a result of it'"
        " WHERE batch_id = %s AND state = 'asked'",
        (may_be_billed, batch_id),
    )


def waiting(connection: Connection, batch_id: int) -> list[Waiting]:
    """The calls of a batch whose listeners have not moved on, by call."""
    rows = connection.execute(
        "SELECT c.call_id, c.user_key, c.round, c.summary::text, c.input_hash, c.ended,"
        " c.reply, c.state, (SELECT count(*) FROM graph_calls AS o"
        "  WHERE o.user_key = c.user_key AND o.provider = c.provider AND o.model = c.model"
        "  AND o.prompt_hash = c.prompt_hash AND o.input_hash = c.input_hash"
        "  AND o.round = c.round AND o.batch_id IS NOT NULL),"
        " coalesce(c.reserved_usd, 0) * 1000000000,"
        " coalesce(c.cost_usd, CASE WHEN c.may_be_billed OR c.state = 'answered'"
        "  THEN c.reserved_usd END, 0) * 1000000000"
        " FROM graph_calls AS c JOIN graph_tasks AS t USING (user_key, provider, model, batch_id)"
        " WHERE c.batch_id = %s ORDER BY c.call_id",
        (batch_id,),
    ).fetchall()
    return [_waiting(*row) for row in rows]


def _waiting(
    call_id: int,
    user_key: int,
    round: Round,
    summary: str,
    input_hash: str,
    ended: str | None,
    stored: dict[str, Any] | None,
    state: str,
    tries: int,
    reserved: Decimal,
    cost: Decimal,
) -> Waiting:
    reply = None
    if state == "answered" and ended is not None and stored is not None:
        reply = Reply(call_id, user_key, round, input_hash, ended, stored["text"])
    read = _SUMMARY.validate_json(summary)
    return Waiting(call_id, user_key, round, read, reply, tries, int(reserved), int(cost))


def let_go(connection: Connection, run: Run, users: Sequence[int], reason: str) -> None:
    """Listeners wait no more: the next run asks again, or reads what there is."""
    connection.execute(
        "UPDATE graph_tasks SET state = 'failed', batch_id = NULL, claimed_by = NULL, reason = %s,"
        " changed_at = clock_timestamp()"
        " WHERE user_key = ANY(%s) AND provider = %s AND model = %s",
        (clean(reason), list(users), run.provider, run.model),
    )
    close(connection, run)


def close(connection: Connection, run: Run) -> None:
    """Batches of this run for which nobody waits any more are over."""
    connection.execute(
        "UPDATE graph_batches AS b SET state = 'ingested', claimed_by = NULL,"
        " ended_at = clock_timestamp() WHERE state = 'submitted' AND claimed_by = %s"
        " AND NOT EXISTS (SELECT FROM graph_tasks AS t WHERE t.batch_id = b.batch_id)",
        (run.run_id,),
    )
