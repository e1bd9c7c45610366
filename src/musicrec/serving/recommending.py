"""Answers requests for recommendations live, and takes events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from musicrec.database.engine import Dataset
from musicrec.database.redis_address import RedisAddress
from musicrec.errors import ServingError
from musicrec.serving import events
from musicrec.serving.answering import NO_DATASET, Answering, Means
from musicrec.serving.asking import Answer, Ask
from musicrec.serving.breaker import Breaker
from musicrec.serving.engine import Engine
from musicrec.serving.events import Event, Recorded
from musicrec.serving.live_features import LiveFeatures
from musicrec.serving.parts import BUDGET_SECONDS, Part
from musicrec.serving.postgres import Postgres
from musicrec.serving.recall import Recall
from musicrec.serving.refreshing import REFRESH_SECONDS, Refresher
from musicrec.serving.scoring import MAX_WAITING, Scorer

if TYPE_CHECKING:
    from musicrec.serving.measures import Measures


#: Connections that events are written on: where an import keeps them waiting, answers go on.
_WRITERS = 4

_NO_MODEL = "there is no model yet; /readyz says why"

#: Requests under way at once; the others wait for their turn. With more, nobody is answered sooner:
#: they keep the loop from reading what Postgres and Redis answered to the rest.
_AT_ONCE = 8


class RecommendService:
    """Answers requests and takes events, for one event loop.

    Args:
        engines: gives the engine that answers now; None where there is none (yet).
        dataset: whose listeners are known; None: only histories in requests are.
        redis: where the dataset's online features are; None: there are none.
        budget_seconds: how long an answer waits for Postgres, and then for Redis.
        refresh_seconds: how often what an engine holds of its tracks is read again.
        as_of: when the service stands; an event that names no moment is of just before then. None
            is now.
        measures: are told of features, and of parts that are left alone.
    """

    def __init__(
        self,
        engines: Callable[[], Engine | None],
        *,
        dataset: Dataset | None = None,
        redis: RedisAddress | None = None,
        budget_seconds: float = BUDGET_SECONDS,
        refresh_seconds: float = REFRESH_SECONDS,
        as_of: datetime | None = None,
        measures: Measures | None = None,
    ) -> None:
        self._engines = engines
        self._as_of = as_of
        self._refresher = Refresher(engines, refresh_seconds)
        self._breakers: dict[Part, Breaker] = {
            part: Breaker(say=None if measures is None else partial(measures.resting, part))
            for part in ("postgres", "redis")
        }
        self._postgres = self._writing = recall = features = None
        if dataset is not None:
            self._postgres = Postgres(dataset)
            self._writing = Postgres(dataset, fewest=1, most=_WRITERS)
            recall = Recall(self._postgres, budget_seconds, self._breakers["postgres"])
            if redis is not None:
                breaker = self._breakers["redis"]
                features = LiveFeatures(dataset.name, redis, budget_seconds, breaker)
        self._means = Means(Scorer(), recall, features, np.random.default_rng(), measures)
        self._opening: asyncio.Task[None] | None = None
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._num_waiting = 0

    async def open(self) -> None:
        """Begin to connect, and to refresh; the first request or event does so, too."""
        if self._opening is None:
            self._opening = asyncio.ensure_future(self._open())
        # Whoever asks first may go away: the others wait for the same.
        await asyncio.shield(self._opening)

    async def _open(self) -> None:
        self._refresher.start()
        for postgres in (self._postgres, self._writing):
            if postgres is not None:
                await postgres.open()

    async def close(self) -> None:
        """Close the connections and end the threads."""
        self._refresher.close()
        for postgres in (self._postgres, self._writing):
            if postgres is not None and self._opening is not None:
                await postgres.close()
        if self._means.features is not None:
            await self._means.features.close()
        self._means.scorer.close()

    def parts(self) -> Mapping[str, str]:
        """How Postgres and Redis fare: ``asked``, ``resting: why``, or ``off``."""
        there: dict[Part, bool] = {
            "postgres": self._means.recall is not None,
            "redis": self._means.features is not None,
        }
        return {part: self._state(part) if is_on else "off" for part, is_on in there.items()}

    def _state(self, part: Part) -> str:
        breaker = self._breakers[part]
        return f"resting: {breaker.why}" if breaker.is_resting else "asked"

    async def record(self, event: Event) -> Recorded:
        """Write an event; the listener's next answer knows of it, whoever gives it.

        Raises:
            DataError: the event cannot be taken; the message says why.
            ServingError: not now: there is no dataset, or Postgres did not answer in time.
        """
        if self._writing is None:
            raise ServingError(NO_DATASET)
        await self.open()
        now = datetime.now(UTC)
        if self._as_of is not None:  # an answer as of then knows what was before
            now = self._as_of - datetime.resolution
        return await events.record(self._writing, event, now)

    async def recommend(self, ask: Ask) -> Answer:
        """The answer to a request; whatever part fails, there is one.

        Raises:
            ServingError: there is no model yet, or too many wait.
        """
        if self._engines() is None:
            raise ServingError(_NO_MODEL)
        await self.open()
        if self._num_waiting >= MAX_WAITING:
            raise ServingError(f"{self._num_waiting} requests wait already; ask later")
        self._num_waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self._num_waiting -= 1
        try:
            engine = self._engines()
            if engine is None:
                raise ServingError(_NO_MODEL)
            return await Answering(self._means, engine, ask).answer()
        finally:
            self._turns.release()
