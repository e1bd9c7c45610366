"""A blocking connection to Redis for thousands of commands at a time, whose bytes are made already.

Not for requests: ``online`` has the connection of those.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from musicrec.database.redis_address import RedisAddress
from musicrec.errors import DatabaseError
from musicrec.features.resp import encoded

#: Seconds to wait for a server that does not answer at all, and then for any one of its replies.
CONNECT_SECONDS = 5.0
REPLY_SECONDS = 30.0

_PART = 1 << 18


class Connection:
    """One socket. After any error it is of no use: replies may still be under way.

    Args:
        address: one server.
        reply_seconds: how long any one reply may take.

    Raises:
        DatabaseError: from every method, where the connection is refused or lost, or Redis
            refuses a command.
    """

    def __init__(self, address: RedisAddress, reply_seconds: float = REPLY_SECONDS) -> None:
        import hiredis

        self.address = address
        self._reader = hiredis.Reader()
        self._error_type = hiredis.ReplyError
        self._lost = (OSError, hiredis.ProtocolError)  # a timeout is an OSError, too
        self._part = memoryview(bytearray(_PART))
        with self._failures():
            self._socket = _opened(address)
            self._socket.settimeout(reply_seconds)
        if address.password:
            self.ask(encoded(b"AUTH", address.password.encode()), 1)
        self.ask(encoded(b"PING"), 1)

    def ask(self, commands: bytes | memoryview, count: int) -> list[Any]:
        """Send ``count`` commands and wait for as many replies."""
        replies: list[Any] = []
        with self._failures():
            self._socket.sendall(commands)
            while len(replies) < count:
                self._reader.feed(bytes(self._part[: self._received()]))
                while (reply := self._reader.gets()) is not False:
                    if isinstance(reply, self._error_type):
                        raise self._refusal(str(reply))
                    replies.append(reply)
        return replies

    def differs(self, commands: bytes | memoryview, expected: memoryview) -> int | None:
        """Send commands whose replies are known to the byte.

        Returns:
            None if the replies are ``expected``; else a place within it, near the first byte that
            is not, after which the connection is of no use.
        """
        done = 0
        with self._failures():
            self._socket.sendall(commands)
            while done < len(expected):
                size = self._received()
                if self._part[:size] != expected[done : done + size]:
                    return done + _first_difference(self._part[:size], expected[done:])
                done += size
        return None

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _received(self) -> int:
        size = self._socket.recv_into(self._part)
        if not size:
            raise ConnectionError("the server closed the connection")
        return size

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except self._lost as error:
            raise self.address.failure(error) from error

    def _refusal(self, said: str) -> DatabaseError:
        if self.address.password:
            said = said.replace(self.address.password, "***")
        return DatabaseError(f"Redis at {self.address.place} refuses: {said}")


def _opened(address: RedisAddress) -> socket.socket:
    where = (address.host, address.port)
    connection = socket.create_connection(where, timeout=CONNECT_SECONDS)
    try:
        if address.ssl:
            context = ssl.create_default_context()
            connection = context.wrap_socket(connection, server_hostname=address.host)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        connection.close()
        raise
    return connection


def _first_difference(one: memoryview, other: memoryview) -> int:
    pairs = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), len(other))
