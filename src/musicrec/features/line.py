"""One asyncio connection to Redis that many requests share."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, cast


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
