"""Asyncio connections to Redis, each shared by many requests."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from typing import Any, cast

from musicrec.database.redis_address import RedisAddress
from musicrec.features.wire import check_welcome, greeting


class Line(asyncio.Protocol):
    """One connection: requests out, replies in, in the same order.

    Attributes:
        waiting: for each request, oldest first: its future, its replies so far, and how many it
            wants.
        is_lost: whether it is of no use any more.
    """

    def __init__(self) -> None:
        import hiredis

        self._reader = hiredis.Reader()
        self._garbled = hiredis.ProtocolError
        self._transport: asyncio.Transport
        self.waiting: deque[tuple[asyncio.Future[list[Any]], list[Any], int]] = deque()
        self.is_lost = False

    async def ask(self, request: bytes, count: int, limit: asyncio.Timeout) -> list[Any]:
        """Send ``count`` commands and wait for as many replies.

        Args:
            limit: where it runs out, the connection goes too. A request that is cancelled for
                another reason leaves its place in the line.

        Raises:
            ConnectionResetError: the connection was lost before they were all there.
        """
        if self.is_lost:
            raise ConnectionResetError("the connection was lost")
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self.waiting.append((future, [], count))
        self._transport.write(request)
        try:
            return await future
        except asyncio.CancelledError:
            if limit.expired():
                self.drop()
            raise

    def drop(self) -> None:
        """Close the connection now, and let those that wait know."""
        self.is_lost = True
        self._transport.abort()
        while self.waiting:
            future, _, _ = self.waiting.popleft()
            if not future.done():
                future.set_exception(ConnectionResetError("the connection was lost"))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        next_reply = self._reader.gets
        self._reader.feed(data)
        try:
            while (reply := next_reply()) is not False and not self.is_lost:
                future, replies, count = self.waiting[0]
                replies.append(reply)
                if len(replies) == count:
                    self.waiting.popleft()
                    if not future.done():
                        future.set_result(replies)
        except (self._garbled, IndexError):  # or a reply that nobody asked for
            self.drop()

    def connection_lost(self, exc: Exception | None) -> None:
        self.drop()


class Lines:
    """A few connections to one Redis, made when first needed and again when lost.

    Args:
        address: one Redis server.
        num_connections: at most.
    """

    def __init__(self, address: RedisAddress, num_connections: int) -> None:
        self._address = address
        self._tls = ssl.create_default_context() if address.ssl else None
        self._lines: list[Line | None] = [None] * num_connections
        self._connecting = [asyncio.Lock() for _ in self._lines]

    async def ask(self, request: bytes, count: int, limit: asyncio.Timeout) -> list[Any]:
        """As ``Line.ask``, on the one with the fewest waiting; once more if it was lost.

        Raises:
            OSError: Redis is not there, or refuses.
        """
        try:
            return await (await self._line(limit)).ask(request, count, limit)
        except ConnectionResetError:  # closed while it was idle, or by a restart or a slow reply
            return await (await self._line(limit)).ask(request, count, limit)

    def close(self) -> None:
        """Close the connections; requests that wait are lost."""
        for line in self._lines:
            if line is not None:
                line.drop()

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
                hello = greeting(self._address)
                check_welcome(await line.ask(b"".join(hello), len(hello), limit))
            except BaseException:
                line.drop()
                raise
            self._lines[place] = line
            return line
