"""Batches at the provider and our record of them: handed over, found again, fetched.

What is not known is never guessed. A batch whose creation was cut off is looked for by our name of
it, and only once the provider still does not know it after ``UNKNOWN_SECONDS`` is it taken back.
"""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from musicrec.errors import GraphError
from musicrec.graph import batches, budget, calls
from musicrec.graph.batches import Batch, Question, Waiting
from musicrec.graph.claims import Run
from musicrec.graph.pacing import backoff
from musicrec.graph.provider import Answer, Ask, BatchProvider, ProviderError
from musicrec.graph.writing import Connection, Writer

#: A batch that the provider does not know so long after it was intended was never created.
UNKNOWN_SECONDS = 1800.0  # longer than handing over can take: upload, creation, tries
#: Tries to hand a batch over or to ask how far it is.
MAX_TRIES = 6
#: Results stored in one transaction.
CHUNK = 200

Result = TypeVar("Result")


class Refused(GraphError):
    """The provider does not take a batch; it is taken back."""


@dataclass(frozen=True, slots=True)
class Over:
    """A batch that is over.

    Attributes:
        abandoned: listeners of one that never was.
        calls: of one that ended, those whose listeners wait, and why a call failed, if it did.
    """

    abandoned: Sequence[int] = ()
    calls: Sequence[tuple[Waiting, ProviderError | None]] = ()


class Desk:
    """Hands batches over and fetches them, for one run."""

    def __init__(self, provider: BatchProvider, run: Run, writer: Writer) -> None:
        self._provider = provider
        self._run = run
        self._writer = writer

    async def submit(self, asks: Sequence[tuple[Question, Ask]]) -> Batch:
        """Store a batch, then hand it over.

        Raises:
            Refused: it was not created.
        """
        name = f"musicrec-{uuid.uuid4().hex}"
        questions = [question for question, _ in asks]
        intend = partial(batches.intend, run=self._run, name=name, questions=questions)
        batch = await self._writer.do(intend)
        ids = await self._writer.do(partial(batches.custom_ids, batch_id=batch.batch_id))
        # Without those who were forgotten since they were summed up.
        told = [(ids[q.user_key], ask) for q, ask in asks if q.user_key in ids]
        try:
            found = await _tried(lambda: self._provider.submit(name, told))
        except ProviderError as error:
            if error.may_be_billed:  # it may be there all the same: it will be looked for
                return batch
            await self._abandon(batch, str(error))
            raise Refused(str(error)) from error
        return await self._submitted(batch, found)

    async def look(self, batch: Batch) -> Batch | Over:
        """How far a batch is, and all that it brought once it has ended.

        Raises:
            ProviderError: that nobody can be asked until a person has mended something.
        """
        try:
            if batch.provider_batch is None:
                return await self._found(batch)
            return await self._fetched(batch, batch.provider_batch)
        except ProviderError as error:
            if error.then == "stop":
                raise
            return batch  # it cannot be told now

    async def _found(self, batch: Batch) -> Batch | Over:
        known = await self._writer.do(partial(batches.known, run=self._run))
        found = await self._provider.find(batch.name, batch.created, known=known)
        if found is not None:
            return await self._submitted(batch, found)
        if time.time() - batch.created < UNKNOWN_SECONDS:
            return batch
        return Over(abandoned=await self._abandon(batch, "its batch was never created"))

    async def _submitted(self, batch: Batch, provider_batch: str) -> Batch:
        submitted = partial(batches.submitted, batch_id=batch.batch_id)
        await self._writer.do(partial(submitted, provider_batch=provider_batch))
        return replace(batch, provider_batch=provider_batch)

    async def _abandon(self, batch: Batch, reason: str) -> list[int]:
        return await self._writer.do(
            partial(batches.abandon, batch_id=batch.batch_id, reason=reason)
        )

    async def _fetched(self, batch: Batch, provider_batch: str) -> Batch | Over:
        if not (await _tried(lambda: self._provider.poll(provider_batch))).has_ended:
            return batch
        refused: ProviderError | None = None
        failures: dict[int, ProviderError] = {}
        try:
            failures = await self._store_results(provider_batch)
        except ProviderError as error:
            if error.is_gone:  # kept too long at the provider: it has been billed
                refused = ProviderError(str(error), "retry", may_be_billed=True)
            elif error.then == "skip":
                refused = error  # all of it
            else:
                raise
        unanswered = partial(batches.unanswered, batch_id=batch.batch_id)
        is_billed = refused is None or refused.may_be_billed
        await self._writer.do(partial(unanswered, may_be_billed=is_billed))
        waiting = await self._writer.do(partial(batches.waiting, batch_id=batch.batch_id))
        return Over(calls=[(call, failures.get(call.call_id, refused)) for call in waiting])

    async def _store_results(self, provider_batch: str) -> dict[int, ProviderError]:
        """Store all that a batch brought, and say which of its calls failed, and how."""
        failures: dict[int, ProviderError] = {}
        writes: list[Callable[[Connection], bool]] = []
        async for custom_id, outcome in self._provider.results(provider_batch):
            if not re.fullmatch(r"c\d{1,18}", custom_id):  # none of ours
                continue
            call_id = int(custom_id[1:])
            if isinstance(outcome, Answer):
                price = self._provider.price
                cost = (
                    budget.usd(budget.cost(outcome.usage, price, in_batch=True), price)
                    if outcome.usage
                    else None
                )
                answered = partial(calls.answered, call_id=call_id, answer=outcome)
                writes.append(partial(answered, cost_usd=cost))
            else:
                failures[call_id] = outcome
                writes.append(partial(calls.failed, call_id=call_id, error=outcome))
            if len(writes) >= CHUNK:
                await self._store(writes)
                writes = []
        await self._store(writes)
        return failures

    async def _store(self, writes: Sequence[Callable[[Connection], bool]]) -> None:
        await self._writer.do(lambda connection: [write(connection) for write in writes])


async def _tried(action: Callable[[], Awaitable[Result]]) -> Result:
    """``action`` with a few tries, where it says that trying helps and does no harm."""
    for attempt in range(1, MAX_TRIES + 1):
        try:
            return await action()
        except ProviderError as error:
            if error.then != "retry" or error.may_be_billed or attempt == MAX_TRIES:
                raise
            await asyncio.sleep(backoff(attempt, error.retry_after))
    raise AssertionError("unreachable")
