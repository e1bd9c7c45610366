"""Graphs for many listeners: claimed in batches, asked for many at once, each stored as it comes.

    users ──claim batch_size──▶ summaries ──▶ workers: ask ▶ store raw ▶ read ▶ store graph

All state is in Postgres. A run may be killed at any moment: the next one finds what is stored,
reads replies that nobody has read, and asks again only for what was in flight. What happens to one
listener never ends the others' run.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Literal

from musicrec.database.engine import Dataset
from musicrec.errors import DatabaseError
from musicrec.graph import calls, claims, prompt, store, verdict
from musicrec.graph.asking import Asker, GivenUp, Gone, Skipped, Stopped
from musicrec.graph.budget import Budget
from musicrec.graph.calls import Reply, Round
from musicrec.graph.claims import Run
from musicrec.graph.intake import Intake, Work
from musicrec.graph.pacing import Pace
from musicrec.graph.provider import Ask, Provider
from musicrec.graph.schema import InterestGraph
from musicrec.graph.settings import Settings, check
from musicrec.graph.tally import Tally
from musicrec.graph.writing import Writer, writer

#: Workers beyond the calls in flight: they read and store while others wait for the provider.
SPARE_WORKERS = 8

#: Why a run has stopped whose ``stop`` was set.
INTERRUPTED = "interrupted; run again to go on"

OnProgress = Callable[[Tally], None]


async def run(
    dataset: Dataset,
    provider: Provider,
    users: Sequence[int] | None,
    settings: Settings,
    *,
    on_progress: OnProgress | None = None,
    stop: asyncio.Event | None = None,
) -> Tally:
    """Bring the graphs of ``users`` up to their listening.

    Args:
        users: their keys; None is everybody.
        stop: set it to make no further call; those in flight are still waited for.

    Raises:
        ConfigError: as ``check``.
        DatabaseError: Postgres is lost or refuses.
    """
    check(provider, settings)
    tally = Tally()
    async with begun(dataset, provider, settings, "live", tally) as (opened, current):
        await Job(dataset, provider, current, opened, settings, tally, on_progress).run(users, stop)
    return tally


@asynccontextmanager
async def begun(
    dataset: Dataset,
    provider: Provider,
    settings: Settings,
    mode: Literal["live", "batch"],
    tally: Tally,
) -> AsyncIterator[tuple[Writer, Run]]:
    """A run as Postgres knows it, from its beginning to how it ended."""
    async with writer(dataset) as opened:
        begin = partial(
            claims.begin,
            provider=provider.name,
            model=provider.model,
            prompt_hash=prompt.PROMPT_HASH,
            mode=mode,
            max_cost_usd=settings.max_cost_usd,
        )
        current = await opened.do(begin)
        try:
            yield opened, current
        finally:
            # If the server is lost, that is already being said; the claims ended with the session.
            with suppress(DatabaseError):
                await opened.do(partial(claims.finish, run=current, outcome=outcome_line(tally)))


def outcome_line(tally: Tally) -> str:
    """How a run ended, for ``graph_runs``."""
    counts = {
        name: value for name, value in vars(tally).items() if isinstance(value, int) and value
    }
    said = ", ".join(f"{name}={value}" for name, value in counts.items())
    return calls.clean(f"stopped: {tally.stopped}; {said}" if tally.stopped else f"whole: {said}")


class Job:
    """One run over listeners."""

    def __init__(
        self,
        dataset: Dataset,
        provider: Provider,
        current: Run,
        opened: Writer,
        settings: Settings,
        tally: Tally,
        on_progress: OnProgress | None,
    ) -> None:
        self._run = current
        self._writer = opened
        self._settings = settings
        self.tally = tally
        self._intake = Intake(dataset, current, opened, settings, tally)
        self._told = on_progress or (lambda tally: None)
        pace = Pace(
            settings.requests_per_minute,
            settings.input_tokens_per_minute,
            settings.output_tokens_per_minute,
            is_known=provider.name == "local",
        )
        self._asker = Asker(
            provider,
            current,
            opened,
            pace,
            Budget(settings.max_cost_usd),
            settings.patience,
            settings.max_in_flight,
            tally,
        )

    async def run(self, users: Sequence[int] | None, stop: asyncio.Event | None) -> None:
        """Until all are settled, or the run has stopped."""
        ready: asyncio.Queue[Work | None] = asyncio.Queue(maxsize=self._settings.max_in_flight)
        workers = self._settings.max_in_flight + SPARE_WORKERS
        try:
            async with asyncio.TaskGroup() as group:
                watch = group.create_task(self._watch(stop)) if stop else None
                working = [group.create_task(self._work(ready)) for _ in range(workers)]
                async for works in self._intake.works(users):
                    self._told(self.tally)
                    for work in works:
                        await ready.put(work)
                for _ in working:
                    await ready.put(None)
                await asyncio.wait(working)
                if watch:
                    watch.cancel()
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _watch(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._asker.stop(INTERRUPTED)

    async def _work(self, ready: asyncio.Queue[Work | None]) -> None:
        while (work := await ready.get()) is not None:
            try:
                await self._settle(work)
            except Stopped:
                release = partial(store.release, run=self._run, users=[work.user_key])
                await self._writer.do(release)
            except Skipped as error:
                await self._end(work, "quarantined", str(error))
            except GivenUp as error:
                await self._end(work, "failed", str(error))
            except Gone:
                self.tally.empty += 1
            except DatabaseError:
                raise
            except Exception as error:  # a bug: it is shown in the end, after everybody's turn
                self.tally.bug = self.tally.bug or error
                await self._end(work, "failed", f"bug: {type(error).__name__}: {error}")
            self._told(self.tally)

    async def _settle(self, work: Work) -> None:
        """Ask, read, have it mended once, and store what came of it."""
        if work.replies:
            self.tally.read_again += 1
            reply = work.replies[-1]
        else:
            reply = await self._ask(work, "first", prompt.prompt_of(work.summary))
        graph = await self._read(work, reply)
        if isinstance(graph, str) and verdict.is_mendable(reply):
            mended = prompt.repair_of(work.summary, reply.text or "", graph)
            reply = await self._ask(work, "repair", mended)
            graph = await self._read(work, reply)
        if isinstance(graph, str):
            await self._end(work, "quarantined", graph)
        else:
            keep = partial(
                store.keep,
                run=self._run,
                user_key=work.user_key,
                input_hash=work.input_hash,
                graph=graph,
            )
            if await self._writer.do(keep):
                self.tally.done += 1
            else:
                self.tally.empty += 1  # forgotten while it was asked for

    async def _ask(self, work: Work, round: Round, text: str) -> Reply:
        ask = Ask(work.summary, prompt.SYSTEM, text, self._settings.max_tokens)
        return await self._asker.ask(work.user_key, work.input_hash, round, ask)

    async def _read(self, work: Work, reply: Reply) -> InterestGraph | str:
        """The graph, or what is wrong with the reply."""
        graph = verdict.read(reply, work.summary, self._settings.max_tokens)
        if isinstance(graph, str) and reply.problem is None:
            await self._writer.do(partial(calls.refused, call_id=reply.call_id, problem=graph))
        return graph

    async def _end(self, work: Work, state: str, reason: str) -> None:
        setattr(self.tally, state, getattr(self.tally, state) + 1)
        settle = partial(store.settle, run=self._run, user_key=work.user_key, state=state)
        input_hash = work.input_hash
        await self._writer.do(partial(settle, input_hash=input_hash, reason=reason))
