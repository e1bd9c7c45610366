"""Features of one listener and some candidates, from Redis, now.

``OnlineStore`` blocks, ``AsyncOnlineStore`` is for asyncio; both read by the same plan, and both
fail the same way: when Redis is down, slow, loading or refusing, the answer is a matrix without
stored features that says so and why. A request is one round trip. Whatever takes longer than
``timeout_seconds`` is given up together with its connection, so that a late reply is never taken
for that of another request.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from musicrec.database.redis_address import RedisAddress
from musicrec.features.context import Context
from musicrec.features.line import Line
from musicrec.features.plan import FeatureMatrix, ReadPlan
from musicrec.features.resp import encoded

#: How long a request may take, connecting included.
TIMEOUT_SECONDS = 0.05

_PART = 1 << 16
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
        self._new_reader = hiredis.Reader
        self._garbled = hiredis.ProtocolError
        self._tls = ssl.create_default_context() if address.ssl else None
        self._turn = threading.Lock()
        self._socket: socket.socket | None = None
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
        if self._socket is not None:
            self._socket.close()
            self._socket = None

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
            if self._socket is not None:
                try:
                    return self._exchange(self._socket, request, count, deadline)
                except TimeoutError:
                    raise
                except OSError:  # closed while it was idle, or by a restart
                    self.close()
            return self._exchange(self._connected(deadline), request, count, deadline)
        except BaseException:
            self.close()
            raise
        finally:
            self._turn.release()

    def _connected(self, deadline: float) -> socket.socket:
        where = (self._address.host, self._address.port)
        self._socket = socket.create_connection(where, timeout=_left(deadline))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is not None:
            self._socket.settimeout(_left(deadline))
            self._socket = self._tls.wrap_socket(self._socket, server_hostname=self._address.host)
        self._reader = self._new_reader()
        hello = _hello(self._address)
        _check_welcome(self._exchange(self._socket, b"".join(hello), len(hello), deadline))
        return self._socket

    def _exchange(
        self, connection: socket.socket, request: bytes, count: int, deadline: float
    ) -> list[Any]:
        replies: list[Any] = []
        feed, next_reply = self._reader.feed, self._reader.gets
        connection.settimeout(_left(deadline))
        connection.sendall(request)
        while len(replies) < count:
            connection.settimeout(_left(deadline))
            part = connection.recv(_PART)
            if not part:
                raise ConnectionResetError("the server closed the connection")
            feed(part)
            while (reply := next_reply()) is not False:
                replies.append(reply)
        return replies


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
        self._tls = ssl.create_default_context() if address.ssl else None
        self._lines: list[Line | None] = [None] * num_connections
        self._connecting = [asyncio.Lock() for _ in self._lines]
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
            async with asyncio.timeout(self._timeout) as limit:
                count = self.plan.num_replies(len(track_ids))
                replies = await self._replies(request, count, limit)
        except OSError as error:
            return self.plan.unavailable(_why(self._address, error), track_ids, context)
        finally:
            self._num_pending -= 1
        return self.plan.decode(replies, track_ids, context, as_of)

    async def close(self) -> None:
        """Close the connections; requests that wait are answered without Redis."""
        for line in self._lines:
            if line is not None:
                line.drop()

    async def __aenter__(self) -> AsyncOnlineStore:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _replies(self, request: bytes, count: int, limit: asyncio.Timeout) -> list[Any]:
        try:
            return await (await self._line(limit)).ask(request, count, limit)
        except ConnectionResetError:  # closed while it was idle, or by a restart or a slow reply
            return await (await self._line(limit)).ask(request, count, limit)

    async def _line(self, limit: asyncio.Timeout) -> Line:
        """The open connection with the fewest waiting, or a new one."""
        best: Line | None = None
        for place, line in enumerate(self._lines):
            if line is None or line.is_lost:
                line = await self._connected(place, limit)
            if not line.waiting:
                return line
            if best is None or len(line.waiting) < len(best.waiting):
                best = line
        assert best is not None
        return best

    async def _connected(self, place: int, limit: asyncio.Timeout) -> Line:
        async with self._connecting[place]:
            line = self._lines[place]
            if line is not None and not line.is_lost:  # by whoever waited before
                return line
            loop = asyncio.get_running_loop()
            where = (self._address.host, self._address.port)
            _, line = await loop.create_connection(Line, *where, ssl=self._tls)
            try:
                hello = _hello(self._address)
                _check_welcome(await line.ask(b"".join(hello), len(hello), limit))
            except BaseException:
                line.drop()
                raise
            self._lines[place] = line
            return line


def _hello(address: RedisAddress) -> list[bytes]:
    """What is said first: to a stranger Redis hangs up over a long request, without a reason."""
    password = address.password
    return [*([encoded(b"AUTH", password.encode())] if password else []), encoded(b"PING")]


def _check_welcome(replies: Sequence[Any]) -> None:
    for reply in replies:
        if isinstance(reply, Exception):
            raise ConnectionRefusedError(f"it says {reply}")


def _why(address: RedisAddress, error: BaseException) -> str:
    """The reason of an answer without Redis, in one line."""
    if isinstance(error, TimeoutError):
        return f"Redis at {address.place} did not answer in time"
    return str(address.failure(error))


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
