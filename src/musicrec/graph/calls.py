"""Calls as Postgres remembers them: the intent before the call, the reply before it is read.

A call is ``asked`` from before it is made until its answer or failure is stored. One that a dead
run left ``asked`` was in flight when it was killed: it becomes ``lost``, may have been billed, and
is counted. An answer stays open until what became of its user is stored; a run that finds open
answers reads them instead of asking again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from psycopg.types.json import Json

from musicrec.graph.claims import Run
from musicrec.graph.provider import Answer, ProviderError
from musicrec.graph.writing import Connection

Round = Literal["first", "repair"]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as it is read: what a live call brought, or what a killed run had stored.

    Attributes:
        ended, text: as in ``Answer.end`` and ``Answer.text``.
        problem: why it was not taken, where somebody has read it.
    """

    call_id: int
    user_key: int
    round: Round
    input_hash: str
    ended: str
    text: str | None
    problem: str | None = None


def intend(
    connection: Connection,
    run: Run,
    user_key: int,
    input_hash: str,
    round: Round,
    reserved_usd: Decimal | None,
) -> int | None:
    """Store that a call is about to be made; its id, or None where its user was forgotten."""
    row = connection.execute(
        "INSERT INTO graph_calls (user_key, run_id, provider, model, prompt_hash, input_hash,"
        " round, state, reserved_usd, asked_at)"
        " SELECT user_key, %s, %s, %s, %s, %s, %s, 'asked', %s, clock_timestamp()"
        " FROM users WHERE user_key = %s FOR KEY SHARE RETURNING call_id",
        (
            *(run.run_id, run.provider, run.model, run.prompt_hash, input_hash),
            *(round, reserved_usd, user_key),
        ),
    ).fetchone()
    return None if row is None else int(row[0])


def answered(
    connection: Connection, call_id: int, answer: Answer, cost_usd: Decimal | None
) -> bool:
    """Store an answer as it came.

    Returns:
        Whether it is new: False where it is stored already, or its user was forgotten.
    """
    usage = answer.usage
    tokens = (usage.input, usage.output, usage.cached) if usage else (None, None, None)
    done = connection.execute(
        "UPDATE graph_calls SET state = 'answered', ended_at = clock_timestamp(), ended = %s,"
        " reply = %s, input_tokens = %s, output_tokens = %s, cached_tokens = %s, cost_usd = %s"
        " WHERE call_id = %s AND state = 'asked'",
        (
            *(answer.end, Json({"raw": answer.raw, "text": answer.text}), *tokens),
            *(cost_usd, call_id),
        ),
    )
    return done.rowcount == 1


def failed(connection: Connection, call_id: int, error: ProviderError) -> bool:
    """Store that there was no answer, and why; whether that is new."""
    raw = None if error.raw is None else Json({"raw": error.raw, "text": None})
    done = connection.execute(
        "UPDATE graph_calls SET state = 'failed', ended_at = clock_timestamp(), problem = %s,"
        " may_be_billed = %s, reply = %s, is_settled = true, cost_usd = %s"
        " WHERE call_id = %s AND state = 'asked'",
        (
            *(clean(str(error)), error.may_be_billed, raw),
            *(None if error.may_be_billed else 0, call_id),
        ),
    )
    return done.rowcount == 1


def refused(connection: Connection, call_id: int, problem: str) -> None:
    """Store why an answer was not taken."""
    connection.execute(
        "UPDATE graph_calls SET problem = %s WHERE call_id = %s", (clean(problem), call_id)
    )


def lose(connection: Connection, run: Run, users: Sequence[int]) -> list[Decimal | None]:
    """Mark what dead runs left in flight for claimed ``users``; the most each may have cost."""
    rows = connection.execute(
        "UPDATE graph_calls SET state = 'lost', ended_at = clock_timestamp(), is_settled = true,"
        " may_be_billed = true, problem = 'its run was killed while it was in flight'"
        " WHERE user_key = ANY(%s) AND provider = %s AND model = %s AND NOT is_settled"
        " AND state = 'asked' AND batch_id IS NULL AND run_id <> %s RETURNING reserved_usd",
        (list(users), run.provider, run.model, run.run_id),
    )
    return [row[0] for row in rows]


def open_replies(connection: Connection, run: Run, users: Sequence[int]) -> dict[int, list[Reply]]:
    """Answers to the present prompt whose users are not settled, oldest first, by user."""
    rows = connection.execute(
        "SELECT call_id, user_key, round, input_hash, ended, reply, problem"
        " FROM graph_calls WHERE user_key = ANY(%s) AND provider = %s AND model = %s"
        " AND prompt_hash = %s AND NOT is_settled AND state = 'answered' AND reply IS NOT NULL"
        " ORDER BY call_id",
        (list(users), run.provider, run.model, run.prompt_hash),
    )
    found: dict[int, list[Reply]] = {}
    # Read here: of a reply with a NUL Postgres itself gives no part.
    for call_id, user_key, round, input_hash, ended, reply, problem in rows:
        read = Reply(call_id, user_key, round, input_hash, ended, reply["text"], problem)
        found.setdefault(user_key, []).append(read)
    return found


def output_range(connection: Connection, run_provider: str, model: str) -> tuple[int, int] | None:
    """Output tokens that a tenth of past answers stayed below and a tenth passed, if there are."""
    row: tuple[Any, ...] | None = connection.execute(
        "SELECT percentile_disc(0.1) WITHIN GROUP (ORDER BY output_tokens),"
        " percentile_disc(0.9) WITHIN GROUP (ORDER BY output_tokens), count(*)"
        " FROM graph_calls WHERE provider = %s AND model = %s AND output_tokens > 0",
        (run_provider, model),
    ).fetchone()
    return (int(row[0]), int(row[1])) if row and row[2] >= 20 else None


def clean(text: str) -> str:
    """One line that Postgres takes: without NUL, at most 500 characters."""
    line = " ".join(text.replace("\x00", "").encode("utf-8", "replace").decode().split())
    return line if len(line) <= 500 else line[:499] + "…"
