"""The job by batches: handed over, polled, fetched; half the price, within a day.

It differs from the live job in who waits: a listener waits in Postgres for a batch, and no process
needs to live until it ends. A run first looks for what earlier ones left: a batch that was intended
but of which nobody knows whether it was created is looked for at the provider by our name of it;
one that is under way is polled; one that has ended is fetched. Then it hands over what is left to
ask, and goes on with repairs and with calls that failed until nothing is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import cast

from musicrec.database.engine import Dataset
from musicrec.errors import ConfigError
from musicrec.graph import batches, budget, calls, prompt, store, verdict
from musicrec.graph.batches import Batch, Question, Waiting
from musicrec.graph.budget import Budget, BudgetSpent
from musicrec.graph.calls import Reply, Round
from musicrec.graph.claims import Run
from musicrec.graph.desk import Desk, Refused
from musicrec.graph.intake import Intake, Work
from musicrec.graph.job import INTERRUPTED, OnProgress, begun
from musicrec.graph.provider import Ask, BatchProvider, Provider, ProviderError
from musicrec.graph.settings import Settings, check
from musicrec.graph.summary import Summary
from musicrec.graph.tally import Tally
from musicrec.graph.writing import Writer

#: Of one call, in one batch after the other.
MAX_CALL_TRIES = 3


@dataclass(frozen=True, slots=True)
class Plan:
    """How batches are made and waited for.

    Attributes:
        size: calls in one, at most.
        poll_seconds: between two looks at how far they are.
        wait: until they have ended; else the same command fetches the results later.
    """

    size: int = 5000
    poll_seconds: float = 60.0
    wait: bool = True


async def run(
    dataset: Dataset,
    provider: Provider,
    users: Sequence[int] | None,
    settings: Settings,
    plan: Plan,
    *,
    on_progress: OnProgress | None = None,
    stop: asyncio.Event | None = None,
) -> Tally:
    """Bring the graphs of ``users`` up to their listening, by batches.

    Raises:
        ConfigError: the provider takes none; also as ``check``.
        DatabaseError: Postgres is lost or refuses.
    """
    check(provider, settings)
    if not hasattr(provider, "submit"):
        raise ConfigError(f"llm.mode=batch: provider {provider.name} takes none; say llm.mode=live")
    if plan.size < 1 or plan.poll_seconds <= 0:
        raise ConfigError("llm.batch.size must be 1 or more, and llm.batch.poll_seconds above 0")
    tally = Tally()
    async with begun(dataset, provider, settings, "batch", tally) as (opened, current):
        intake = Intake(dataset, current, opened, settings, tally)
        asked = cast(BatchProvider, provider)
        told = on_progress or (lambda tally: None)
        job = BatchJob(asked, current, opened, intake, settings, plan, tally, told)
        await job.run(users, stop or asyncio.Event())
    return tally


class BatchJob:
    """One run over listeners by batches."""

    def __init__(
        self,
        provider: BatchProvider,
        current: Run,
        opened: Writer,
        intake: Intake,
        settings: Settings,
        plan: Plan,
        tally: Tally,
        told: Callable[[Tally], None],
    ) -> None:
        self._provider = provider
        self._run = current
        self._writer = opened
        self._intake = intake
        self._desk = Desk(provider, current, opened)
        self._settings = settings
        self._plan = plan
        self._tally = tally
        self._told = told
        self._money = Budget(settings.max_cost_usd)
        self._pending: list[Question] = []
        #: Why nothing more is asked; what is under way is still waited for.
        self._no_more: str | None = None

    async def run(self, users: Sequence[int] | None, stop: asyncio.Event) -> None:
        """Until nobody waits, or the run is not to wait, or has stopped."""
        under_way: list[Batch] = []
        for batch in await self._writer.do(partial(batches.take, run=self._run)):
            # Before listeners are chosen, so that those of a batch that never was are among them.
            if batch.provider_batch is None and (looked := await self._look_after(batch)):
                under_way.append(looked)
            elif batch.provider_batch is not None:
                under_way.append(batch)
        async for works in self._intake.works(users):
            for work in works:
                await self._consider(work)
            while len(self._pending) >= self._plan.size:
                under_way += await self._hand_over()
            self._told(self._tally)
            if self._no_more or stop.is_set():
                break
        under_way += await self._hand_over()
        while under_way and not stop.is_set():
            left = [await self._look_after(batch) for batch in under_way]
            under_way = [batch for batch in left if batch is not None]
            while self._pending:
                under_way += await self._hand_over()
            self._told(self._tally)
            if not self._plan.wait:
                break
            if under_way:
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), self._plan.poll_seconds)
        self._tally.stopped = INTERRUPTED if stop.is_set() else self._no_more
        self._tally.under_way = self._money.reserved

    async def _consider(self, work: Work) -> None:
        """Ask, or go on where an earlier run left off."""
        if work.replies:
            self._tally.read_again += 1
            await self._judge(work.user_key, work.summary, work.replies[-1])
        else:
            text = prompt.prompt_of(work.summary)
            await self._question(work.user_key, work.summary, "first", text)

    async def _judge(self, user_key: int, summary: Summary, reply: Reply) -> None:
        """Store a reply's graph, or why there is none, or ask to have it mended."""
        graph = verdict.read(reply, summary, self._settings.max_tokens)
        if not isinstance(graph, str):
            keep = partial(store.keep, run=self._run, user_key=user_key, graph=graph)
            is_kept = await self._writer.do(partial(keep, input_hash=summary.input_hash))
            self._count(user_key, "done" if is_kept else "empty")
            return
        await self._writer.do(partial(calls.refused, call_id=reply.call_id, problem=graph))
        if verdict.is_mendable(reply):
            mended = prompt.repair_of(summary, reply.text or "", graph)
            await self._question(user_key, summary, "repair", mended)
        else:
            await self._quarantine(user_key, summary, graph)

    async def _quarantine(self, user_key: int, summary: Summary, reason: str) -> None:
        settle = partial(store.settle, run=self._run, user_key=user_key, state="quarantined")
        await self._writer.do(partial(settle, input_hash=summary.input_hash, reason=reason))
        self._count(user_key, "quarantined")

    async def _let_go(self, users: Sequence[int], reason: str) -> None:
        let_go = partial(batches.let_go, run=self._run, users=users, reason=reason)
        await self._writer.do(let_go)
        for user_key in users:
            self._count(user_key, "failed")

    async def _question(self, user_key: int, summary: Summary, round: Round, text: str) -> None:
        amount = budget.most(self._ask(summary, text), self._provider.price, in_batch=True)
        try:
            if self._no_more is None:
                self._money.take(amount)
        except BudgetSpent as error:
            self._no_more = str(error)
        if self._no_more is not None:
            await self._let_go([user_key], self._no_more)
            return
        usd = budget.usd(amount, self._provider.price)
        self._pending.append(Question(user_key, summary, round, text, amount, usd))

    def _ask(self, summary: Summary, text: str) -> Ask:
        return Ask(summary, prompt.SYSTEM, text, self._settings.max_tokens)

    async def _hand_over(self) -> list[Batch]:
        """Make a batch of what is pending; none where nothing is, or it was refused."""
        size = self._plan.size
        questions, self._pending = self._pending[:size], self._pending[size:]
        if not questions:
            return []
        self._intake.batched |= {question.user_key for question in questions}
        self._tally.batched = len(self._intake.batched)
        self._tally.calls += len(questions)
        self._tally.repairs += sum(question.round == "repair" for question in questions)
        asks = [(q, self._ask(q.summary, q.prompt)) for q in questions]
        try:
            return [await self._desk.submit(asks)]
        except Refused as error:
            self._no_more = self._no_more or str(error)
            for question in questions:
                await self._money.settle(question.reserved, 0)
                self._count(question.user_key, "failed")
            return []

    async def _look_after(self, batch: Batch) -> Batch | None:
        """A batch that is still under way; None where it is over, or cannot be looked after."""
        try:
            looked = await self._desk.look(batch)
        except ProviderError as error:
            self._no_more = self._no_more or str(error)
            return None
        if isinstance(looked, Batch):
            return looked
        for user_key in looked.abandoned:
            if user_key in self._intake.batched:  # else it is still to be chosen
                self._count(user_key, "failed")
        for call, failure in looked.calls:
            await self._settle(call, failure, is_own=batch.is_own)
        await self._writer.do(partial(batches.close, run=self._run))
        return None

    async def _settle(self, call: Waiting, failure: ProviderError | None, *, is_own: bool) -> None:
        """What becomes of a listener whose call is over."""
        if is_own:
            await self._money.settle(call.reserved, call.cost)
            self._tally.spent = self._money.spent
        else:
            self._tally.collected += call.cost
        if call.reply is not None:
            await self._judge(call.user_key, call.summary, call.reply)
            return
        reason = str(failure) if failure else "the batch ended without a result of it"
        if failure is not None and failure.then == "skip":
            await self._quarantine(call.user_key, call.summary, reason)
            return
        if failure is not None and failure.then == "stop":
            self._no_more = self._no_more or reason
        if call.round == "first" and call.tries < MAX_CALL_TRIES and self._no_more is None:
            self._tally.retries += 1
            text = prompt.prompt_of(call.summary)
            await self._question(call.user_key, call.summary, "first", text)
        else:
            await self._let_go([call.user_key], reason)

    def _count(self, user_key: int, outcome: str) -> None:
        """A listener is settled, who waited for a batch, or not, or was not chosen at all."""
        self._intake.batched.discard(user_key)
        self._tally.batched = len(self._intake.batched)
        setattr(self._tally, outcome, getattr(self._tally, outcome) + 1)
        self._tally.users = max(self._tally.users, self._tally.seen)
