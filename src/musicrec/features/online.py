"""Features of one listener and some candidates, from Redis, now.

``OnlineStore`` blocks, ``AsyncOnlineStore`` is for asyncio; both read by the same plan, and both
fail the same way: when Redis is down, slow, loading or refusing, the answer is a matrix without
stored features that says so and why. A request is one round trip; of a Redis Cluster, one to each
node that has rows of it, at the same time. Whatever takes longer than ``timeout_seconds`` is given
up together with its connection, so that a late reply is never taken for that of another request.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from musicrec.database.redis_address import RedisAddress
from musicrec.features.cluster import AsyncCluster, Cluster
from musicrec.features.context import Context
from musicrec.features.limit import answer_within
from musicrec.features.line import Lines
from musicrec.features.plan import FeatureMatrix, ReadPlan
from musicrec.features.wire import Wire

#: How long a request may take, connecting included.
TIMEOUT_SECONDS = 0.05

_NOTHING_KNOWN = Context()


class OnlineStore:
    """Reads features over one connection, made when it is first needed and again when it is lost.

    Threads may share it: they take turns. Give each its own where they are not to wait.

    Args:
        plan: what to read.
        address: Redis.
        timeout_seconds: after which a request is answered without Redis.
    """

    def __init__(
        self, plan: ReadPlan, address: RedisAddress, timeout_seconds: float = TIMEOUT_SECONDS
    ) -> None:
        import hiredis

        self.plan = plan
        self._address = address
        self._timeout = timeout_seconds
        self._garbled = hiredis.ProtocolError
        self._turn = threading.Lock()
        self._redis: Wire | Cluster = (Cluster if address.is_cluster else Wire)(address)
        self._process = os.getpid()

    def read(
        self,
        user_id: str,
        track_ids: Sequence[str],
        context: Context = _NOTHING_KNOWN,
        as_of: datetime | None = None,
    ) -> FeatureMatrix:
        """The features of a user and some candidates.

        Args:
            user_id: the listener.
            track_ids: the candidates; any number, repeats allowed.
            context: the moment the listener is in.
            as_of: the moment to answer for, with its time zone; now by default.

        Raises:
            FeatureError: an argument makes no sense, or something in Redis cannot be read.
        """
        request = self.plan.encode(user_id, track_ids)
        deadline = time.monotonic() + self._timeout
        try:
            replies = self._replies(request, self.plan.num_replies(len(track_ids)), deadline)
        except (OSError, self._garbled) as error:
            return self.plan.unavailable(_why(self._address, error), track_ids, context)
        return self.plan.decode(replies, track_ids, context, as_of)

    def close(self) -> None:
        """Close the connection; the next read makes another."""
        self._redis.close()

    def __enter__(self) -> OnlineStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _replies(self, request: bytes, count: int, deadline: float) -> list[Any]:
        if not self._turn.acquire(timeout=self._timeout):
            raise TimeoutError
        try:
            if self._process != os.getpid():  # a fork must not read its parent's replies
                self.close()
                self._process = os.getpid()
            return self._redis.ask(request, count, deadline)
        except BaseException:
            self.close()
            raise
        finally:
            self._turn.release()


class AsyncOnlineStore:
    """Reads features for one event loop, many requests at a time over a few connections.

    Requests that share a connection follow each other without waiting for answers, which come in
    the same order. One that is not answered in time takes its connection with it; the others on it
    are asked again on a new one, once, as long as their own time lasts.

    Args:
        plan: what to read.
        address: Redis.
        timeout_seconds: after which a request is answered without Redis.
        num_connections: made when first needed, and again when lost.
        max_pending: how many requests may wait; more are answered without Redis at once.
    """

    def __init__(
        self,
        plan: ReadPlan,
        address: RedisAddress,
        timeout_seconds: float = TIMEOUT_SECONDS,
        *,
        num_connections: int = 2,
        max_pending: int = 1000,
    ) -> None:
        self.plan = plan
        self._address = address
        self._timeout = timeout_seconds
        kind = AsyncCluster if address.is_cluster else Lines
        self._redis: Lines | AsyncCluster = kind(address, num_connections)
        self._max_pending = max_pending
        self._num_pending = 0

    async def read(
        self,
        user_id: str,
        track_ids: Sequence[str],
        context: Context = _NOTHING_KNOWN,
        as_of: datetime | None = None,
    ) -> FeatureMatrix:
        """As ``OnlineStore.read``."""
        request = self.plan.encode(user_id, track_ids)
        if self._num_pending >= self._max_pending:
            reason = f"{self._num_pending} requests wait for Redis already"
            return self.plan.unavailable(reason, track_ids, context)
        self._num_pending += 1
        try:
            async with answer_within(self._timeout) as limit:
                count = self.plan.num_replies(len(track_ids))
                replies = await self._redis.ask(request, count, limit)
        except OSError as error:
            return self.plan.unavailable(_why(self._address, error), track_ids, context)
        finally:
            self._num_pending -= 1
        return self.plan.decode(replies, track_ids, context, as_of)

    async def close(self) -> None:
        """Close the connections; requests that wait are answered without Redis."""
        self._redis.close()

    async def __aenter__(self) -> AsyncOnlineStore:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _why(address: RedisAddress, error: BaseException) -> str:
    """The reason of an answer without Redis, in one line."""
    if isinstance(error, TimeoutError):
        return f"Redis at {address.place} did not answer in time"
    return str(address.failure(error))
