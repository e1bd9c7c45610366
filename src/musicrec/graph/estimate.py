"""What a run would ask and cost, without a call and without a claim."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from musicrec.database.engine import Dataset
from musicrec.graph import budget, calls, claims, prompt, store
from musicrec.graph.provider import Ask, Price, Usage
from musicrec.graph.reply_schema import REPLY_SCHEMA
from musicrec.graph.settings import Settings
from musicrec.graph.store import Origin
from musicrec.graph.summary import Summary, estimate_tokens, summaries
from musicrec.graph.writing import Connection, connection_to

#: Output tokens of a graph where no answers of this model are stored yet: the least and the most
#: that were seen of models asked for nodes with evidence; ``max_tokens`` bounds it too.
OUTPUT_RANGE = (400, 1600)


@dataclass(frozen=True, slots=True)
class Offer:
    """Whom a run would ask; to know what that costs needs no key."""

    name: str
    model: str
    price: Price | None


@dataclass
class Estimate:
    """What is to be expected; costs are nanodollars, None where the price is not known.

    Attributes:
        users: chosen; ``asked`` of them would be asked for.
        input_tokens: of the first rounds, estimated.
        output_tokens: least and most of a listener: by past answers of this model, or a guess.
        is_measured: which of the two.
        most: what the run could never pass, were every reply as long as it may be.
    """

    users: int = 0
    asked: int = 0
    unchanged: int = 0
    quarantined_before: int = 0
    empty: int = 0
    input_tokens: int = 0
    output_tokens: tuple[int, int] = OUTPUT_RANGE
    is_measured: bool = False
    cost: tuple[int, int] | None = None
    most: int | None = None


def estimate(
    dataset: Dataset,
    provider: Offer,
    users: Sequence[int] | None,
    settings: Settings,
    *,
    in_batch: bool = False,
    on_progress: Callable[[Estimate], None] | None = None,
) -> Estimate:
    """Summarize everybody who would be asked for, and add up.

    A repair costs another call; the range leaves it out, and ``most`` too.

    Raises:
        DatabaseError: Postgres refuses or is lost.
    """
    told = Estimate()
    with connection_to(dataset) as connection:
        seen = calls.output_range(connection, provider.name, provider.model)
        low, high = seen or OUTPUT_RANGE
        told.output_tokens = (min(low, settings.max_tokens), min(high, settings.max_tokens))
        told.is_measured = seen is not None
        for keys in _batches(connection, users, settings.batch_size):
            known = _states(connection, provider, keys)
            condensed = summaries(
                dataset,
                keys,
                as_of=settings.as_of,
                max_tokens=settings.max_summary_tokens,
                zone=settings.zone,
            )
            told.users += len(keys)
            told.empty += len(keys) - len(condensed)
            for key, summary in condensed.items():
                _add(told, provider, summary, known.get(key), settings, in_batch)
            connection.rollback()
            if on_progress:
                on_progress(told)
    return told


def input_tokens(ask: Ask) -> int:
    """Of a call, the schema's among them; an estimate, as ``estimate_tokens``."""
    return estimate_tokens(ask.system) + estimate_tokens(ask.prompt) + _SCHEMA_TOKENS


_SCHEMA_TOKENS = estimate_tokens(json.dumps(REPLY_SCHEMA))


def _add(
    told: Estimate,
    provider: Offer,
    summary: Summary,
    known: tuple[Origin | None, Origin | None] | None,
    settings: Settings,
    in_batch: bool,
) -> None:
    wanted = Origin(provider.name, provider.model, prompt.PROMPT_HASH, summary.input_hash)
    current, quarantined = known or (None, None)
    if current == wanted:
        told.unchanged += 1
        return
    if quarantined == wanted and not settings.retry_quarantined:
        told.quarantined_before += 1
        return
    ask = Ask(summary, prompt.SYSTEM, prompt.prompt_of(summary), settings.max_tokens)
    tokens = 0 if provider.name == "local" else input_tokens(ask)
    told.asked += 1
    told.input_tokens += tokens
    if provider.price is not None:
        low, high = (
            budget.cost(Usage(tokens, output), provider.price, in_batch=in_batch)
            for output in told.output_tokens
        )
        before = told.cost or (0, 0)
        told.cost = (before[0] + low, before[1] + high)
        told.most = (told.most or 0) + budget.most(ask, provider.price, in_batch=in_batch)


def _batches(
    connection: Connection, users: Sequence[int] | None, size: int
) -> Iterator[Sequence[int]]:
    if users is not None:
        keys = sorted(set(users))
        for page in range(math.ceil(len(keys) / size)):
            yield keys[page * size : (page + 1) * size]
        return
    last = -1
    while page_of := claims.next_users(connection, last, size):
        yield page_of
        last = page_of[-1]


def _states(
    connection: Connection, provider: Offer, users: Sequence[int]
) -> dict[int, tuple[Origin | None, Origin | None]]:
    """Of each user the origin of the current graph, and what the user is quarantined for."""
    current = store.current_origins(connection, users)
    rows = connection.execute(
        "SELECT user_key, prompt_hash, input_hash FROM graph_tasks WHERE user_key = ANY(%s)"
        " AND provider = %s AND model = %s AND state = 'quarantined'",
        (list(users), provider.name, provider.model),
    )
    quarantined = {
        key: Origin(provider.name, provider.model, prompt_hash, input_hash)
        for key, prompt_hash, input_hash in rows
    }
    return {key: (current.get(key), quarantined.get(key)) for key in users}
