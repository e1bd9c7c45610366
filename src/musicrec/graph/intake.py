"""Which listeners a run takes on: claimed, summarized, and sorted by whether to ask for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial

from musicrec.database.engine import Dataset
from musicrec.graph import calls, claims, store
from musicrec.graph.calls import Reply
from musicrec.graph.claims import Run, Task
from musicrec.graph.settings import Settings
from musicrec.graph.store import Origin
from musicrec.graph.summary import Summary, summaries
from musicrec.graph.tally import Tally
from musicrec.graph.writing import Connection, Writer

#: How long to wait for what a run that was just killed still holds.
LINGER_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Work:
    """A claimed listener to ask for, and what was already answered."""

    user_key: int
    summary: Summary
    input_hash: str
    replies: tuple[Reply, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """What Postgres holds of listeners that were just claimed.

    Attributes:
        origins: of their current graphs.
        replies: answers that nobody has read to the end.
        lost: the most that each call may have cost which was in flight when its run was killed.
    """

    tasks: list[Task]
    origins: dict[int, Origin]
    replies: dict[int, list[Reply]]
    lost: list[Decimal | None]


class Intake:
    """The listeners of one run, some at a time.

    Attributes:
        batched: of those chosen, who wait for a batch; ``Tally.batched`` is their number.
    """

    def __init__(
        self, dataset: Dataset, run: Run, writer: Writer, settings: Settings, tally: Tally
    ) -> None:
        self._dataset = dataset
        self._run = run
        self._writer = writer
        self._settings = settings
        self._tally = tally
        self.batched: set[int] = set()

    async def works(self, users: Sequence[int] | None) -> AsyncIterator[list[Work]]:
        """Whom to ask for, as long as the run has not stopped; the others are settled and counted.

        Args:
            users: keys; None is everybody.
        """
        self._tally.users = await self._writer.do(partial(_count, users=users))
        held: list[int] = []
        async for keys in self._batches(users):
            works, others = await self._claim(keys)
            held += others
            yield works
        # A server takes a moment to notice that a client was killed.
        clock = asyncio.get_running_loop().time
        deadline = clock() + LINGER_SECONDS
        while held and self._tally.stopped is None:
            self.batched = await self._writer.do(partial(_batched, run=self._run, users=held))
            if len(self.batched) == len(held) or clock() > deadline:
                self._tally.batched = len(self.batched)
                self._tally.elsewhere = len(held) - len(self.batched)
                return
            await asyncio.sleep(0.2)
            works, held = await self._claim(held)
            yield works

    async def _batches(self, users: Sequence[int] | None) -> AsyncIterator[Sequence[int]]:
        size, last = self._settings.batch_size, -1
        chosen = None if users is None else sorted(set(users))
        while self._tally.stopped is None:
            if chosen is not None:
                keys, chosen = chosen[:size], chosen[size:]
            else:
                keys = await self._writer.do(partial(claims.next_users, after=last, limit=size))
            if not keys:
                return
            yield keys
            last = keys[-1]

    async def _claim(self, keys: Sequence[int]) -> tuple[list[Work], list[int]]:
        """Whom to ask for of ``keys``, and the keys of those whom others hold."""
        found = await self._writer.do(partial(_look, run=self._run, users=keys))
        mine = [task.user_key for task in found.tasks]
        self._tally.lost += len(found.lost)
        self._tally.lost_nanodollars += sum(int((usd or 0) * 10**9) for usd in found.lost)
        condensed = await asyncio.to_thread(_condensed, self._dataset, mine, self._settings)
        works, writes = self._sorted(found, condensed)
        if writes:
            await self._writer.do(lambda connection: [write(connection) for write in writes])
        new = {work.user_key: work.input_hash for work in works if not work.replies}
        if new:
            known = await self._writer.do(partial(store.restore, run=self._run, inputs=new))
            self._tally.done += len(known)
            works = [work for work in works if work.user_key not in known]
        return works, sorted(set(keys) - set(mine))

    def _sorted(
        self, found: Found, condensed: dict[int, tuple[Summary, str]]
    ) -> tuple[list[Work], list[Callable[[Connection], None]]]:
        """Whom to ask for, and what to store of the others."""
        works: list[Work] = []
        writes: list[Callable[[Connection], None]] = []
        free: list[int] = []
        for task in found.tasks:
            key = task.user_key
            if key not in condensed:
                self._tally.empty += 1
                settle = partial(store.settle, run=self._run, user_key=key, state="empty")
                writes.append(partial(settle, reason="no plays"))
                continue
            summary, input_hash = condensed[key]
            if found.origins.get(key) == self._origin(input_hash):
                self._tally.unchanged += 1
                free.append(key)
            elif self._is_in_vain(task, input_hash):
                self._tally.quarantined_before += 1
                free.append(key)
            else:
                replies = found.replies.get(key, [])
                fitting = tuple(r for r in replies if r.input_hash == input_hash)
                works.append(Work(key, summary, input_hash, fitting))
        if free:
            writes.append(partial(store.release, run=self._run, users=free))
        return works, writes

    def _origin(self, input_hash: str) -> Origin:
        run = self._run
        return Origin(run.provider, run.model, run.prompt_hash, input_hash)

    def _is_in_vain(self, task: Task, input_hash: str) -> bool:
        about = (task.state, task.prompt_hash, task.input_hash)
        is_same = about == ("quarantined", self._run.prompt_hash, input_hash)
        return is_same and not self._settings.retry_quarantined


def _condensed(
    dataset: Dataset, users: Sequence[int], settings: Settings
) -> dict[int, tuple[Summary, str]]:
    """Summaries with their hashes, which take as long as a call's own work: once, and aside."""
    found = summaries(
        dataset,
        users,
        as_of=settings.as_of,
        max_tokens=settings.max_summary_tokens,
        zone=settings.zone,
    )
    return {key: (summary, summary.input_hash) for key, summary in found.items()}


def _look(connection: Connection, run: Run, users: Sequence[int]) -> Found:
    tasks = claims.claim(connection, run, users)
    mine = [task.user_key for task in tasks]
    return Found(
        tasks,
        store.current_origins(connection, mine),
        calls.open_replies(connection, run, mine),
        calls.lose(connection, run, mine),
    )


def _count(connection: Connection, users: Sequence[int] | None) -> int:
    if users is not None:
        return len(set(users))
    (count,) = connection.execute("SELECT count(*) FROM users").fetchone() or (0,)
    return int(count)


def _batched(connection: Connection, run: Run, users: Sequence[int]) -> set[int]:
    rows = connection.execute(
        "SELECT user_key FROM graph_tasks WHERE user_key = ANY(%s) AND provider = %s"
        " AND model = %s AND batch_id IS NOT NULL",
        (list(users), run.provider, run.model),
    )
    return {row[0] for row in rows}
