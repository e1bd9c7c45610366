"""One call with everything around it: its turn, its money, its trace in Postgres, its retries.

There is one retry policy, this one: full jitter on top of what the provider asks to wait, within
``deadline_seconds`` of calling and waiting, and a pause for all after a 429. What no waiting mends
is not tried again: it ends the listener or the run.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial

from musicrec.errors import GraphError
from musicrec.graph import budget, calls
from musicrec.graph.budget import Budget, BudgetSpent
from musicrec.graph.calls import Reply, Round
from musicrec.graph.claims import Run
from musicrec.graph.pacing import Pace, backoff
from musicrec.graph.provider import Answer, Ask, Provider, ProviderError
from musicrec.graph.tally import Tally
from musicrec.graph.writing import Writer


class Stopped(GraphError):
    """The run has stopped; the listener is as before."""


class Skipped(GraphError):
    """The provider will never answer for this listener."""


class Gone(GraphError):
    """The listener was forgotten; there is nothing to ask and nothing to store."""


class GivenUp(GraphError):
    """No answer within the deadline; the next run may have more luck."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long and how often to try.

    Attributes:
        timeout_seconds: of one call.
        deadline_seconds: of one question with all its tries, waiting for turns left out.
        max_failures: in a row, of whatever calls, before the run takes the provider for down.
    """

    timeout_seconds: float = 60.0
    deadline_seconds: float = 300.0
    max_failures: int = 50


class Asker:
    """Makes the calls of a run; ``max_in_flight`` of them at once."""

    def __init__(
        self,
        provider: Provider,
        run: Run,
        writer: Writer,
        pace: Pace,
        money: Budget,
        patience: Patience,
        max_in_flight: int,
        tally: Tally,
    ) -> None:
        self._provider = provider
        self._run = run
        self._writer = writer
        self._pace = pace
        self._money = money
        self._patience = patience
        self._slots = asyncio.Semaphore(max_in_flight)
        self._max_failures = max(patience.max_failures, 3 * max_in_flight)
        self._failures = 0
        self._tokens_per_byte, self._output = 0.25, 0.0
        self._tally = tally

    def stop(self, reason: str) -> None:
        """Make no further call; the first reason stays."""
        self._tally.stopped = self._tally.stopped or reason

    async def ask(self, user_key: int, input_hash: str, round: Round, ask: Ask) -> Reply:
        """Ask until there is an answer; it is stored when this returns.

        Raises:
            Stopped, Skipped, GivenUp: there is none.
        """
        used, attempt = 0.0, 0
        while True:
            attempt += 1
            async with self._slots:
                self._check()
                began, outcome, call_id = await self._call(user_key, input_hash, round, ask)
            self._tally.retries += attempt > 1
            self._tally.repairs += attempt == 1 and round == "repair"
            if isinstance(outcome, Answer):
                return Reply(call_id, user_key, round, input_hash, outcome.end, outcome.text)
            used += asyncio.get_running_loop().time() - began
            wait = self._wait(outcome, attempt, used)
            used += wait
            await asyncio.sleep(wait)

    async def _call(
        self, user_key: int, input_hash: str, round: Round, ask: Ask
    ) -> tuple[float, Answer | ProviderError, int]:
        provider, price = self._provider, self._provider.price
        size = budget.input_bound(ask)
        expected = self._output or ask.max_tokens / 2
        await self._pace.turn(round_up(size * self._tokens_per_byte), round_up(expected))
        reserved = budget.most(ask, price)
        try:
            await self._money.reserve(reserved)
        except BudgetSpent as error:
            self.stop(str(error))
        self._check()
        cost, is_known = reserved, False  # unless an answer says otherwise
        intend = partial(
            calls.intend,
            run=self._run,
            user_key=user_key,
            input_hash=input_hash,
            round=round,
            reserved_usd=budget.usd(reserved, price),
        )
        outcome: Answer | ProviderError
        try:
            call_id = await self._writer.do(intend)
            if call_id is None:
                cost, is_known = 0, True
                raise Gone("forgotten before the call")
            self._tally.calls += 1
            began = asyncio.get_running_loop().time()
            try:
                outcome = await provider.ask(ask, timeout_seconds=self._patience.timeout_seconds)
            except ProviderError as error:
                outcome = error
                if not error.may_be_billed:
                    cost, is_known = 0, True
                await self._writer.do(partial(calls.failed, call_id=call_id, error=error))
            else:
                if outcome.usage is not None:
                    cost, is_known = budget.cost(outcome.usage, price), True
                    self._expect(size, outcome.usage.input, outcome.usage.output)
                self._pace.learn(outcome.limits)
                self._failures = 0
                amount = budget.usd(cost, price)
                await self._writer.do(
                    partial(calls.answered, call_id=call_id, answer=outcome, cost_usd=amount)
                )
        finally:
            self._pace.failed()  # whatever came of it, nobody waits for this scout any more
            await self._money.settle(reserved, cost, is_known=is_known)
            self._tally.spent, self._tally.unknown = self._money.spent, self._money.unknown
        return began, outcome, call_id

    def _check(self) -> None:
        if self._tally.stopped is not None:
            raise Stopped(self._tally.stopped)

    def _expect(self, size: int, input_tokens: int, output_tokens: int) -> None:
        """Learn what the next call will take of the limits, from the last ones."""
        self._tokens_per_byte += 0.2 * (input_tokens / size - self._tokens_per_byte)
        self._output += (0.2 if self._output else 1.0) * (output_tokens - self._output)

    def _wait(self, error: ProviderError, attempt: int, used: float) -> float:
        """Seconds until the next try.

        Raises:
            Stopped, Skipped, GivenUp: there will be none.
        """
        if error.then == "stop":
            self._pace.failed()
            self.stop(str(error))
            raise Stopped(str(error)) from error
        if error.is_rate_limit:
            asked_for = self._pace.limited(error.retry_after)
        else:
            self._pace.failed()
            asked_for = error.retry_after or 0.0
        if error.then == "skip":
            raise Skipped(str(error)) from error
        if not error.is_rate_limit:
            self._failures += 1
            if self._failures >= self._max_failures:
                self.stop(f"the last {self._failures} calls all failed, the last one: {error}")
        patience = self._patience
        if asked_for > patience.deadline_seconds:
            self.stop(
                f"{self._provider.name} asks to wait {asked_for:,.0f} s, longer than "
                f"llm.deadline_seconds={patience.deadline_seconds:g}; run again then"
            )
        self._check()
        wait = backoff(attempt, asked_for)
        if used + wait > patience.deadline_seconds:
            raise GivenUp(
                f"no answer after {attempt} tries within "
                f"llm.deadline_seconds={patience.deadline_seconds:g}; the last: {error}"
            ) from error
        return wait


def round_up(tokens: float) -> int:
    """At least one."""
    return int(tokens) + 1
