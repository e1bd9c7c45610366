"""One blocking connection to Redis for requests, each answered before its deadline or not at all.

Materializing, which sends thousands of commands and may wait, has another: ``connection``.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Sequence
from typing import Any

from musicrec.database.redis_address import RedisAddress
from musicrec.features.resp import encoded

_PART = 1 << 16


class Wire:
    """One connection, made when it is first needed and again when it is lost.

    After any error it must be closed: replies may still be under way. Deadlines are of
    ``time.monotonic``.

    Args:
        address: one Redis server.

    Raises:
        TimeoutError: from every method, when the deadline has passed.
        OSError, hiredis.ProtocolError: Redis is not there, or says what nobody can read.
    """

    def __init__(self, address: RedisAddress) -> None:
        import hiredis

        self._address = address
        self._new_reader = hiredis.Reader
        self._tls = ssl.create_default_context() if address.ssl else None
        self._socket: socket.socket | None = None

    def ask(self, request: bytes, count: int, deadline: float) -> list[Any]:
        """Send ``count`` commands and wait for as many replies."""
        if self._socket is not None:
            try:
                return self._exchange(request, count, deadline)
            except TimeoutError:
                raise
            except OSError:  # closed while it was idle, or by a restart
                self.close()
        return self._exchange(request, count, deadline)

    def send(self, request: bytes, deadline: float) -> None:
        """The first half of ``ask``; here a connection lost while it was idle is an error."""
        if self._socket is None:
            self._socket = self._connected(deadline)
            hello = greeting(self._address)
            check_welcome(self._exchange(b"".join(hello), len(hello), deadline))
        self._socket.settimeout(_left(deadline))
        self._socket.sendall(request)

    def receive(self, count: int, deadline: float) -> list[Any]:
        """The second half."""
        assert self._socket is not None
        replies: list[Any] = []
        feed, next_reply = self._reader.feed, self._reader.gets
        while len(replies) < count:
            self._socket.settimeout(_left(deadline))
            part = self._socket.recv(_PART)
            if not part:
                raise ConnectionResetError("the server closed the connection")
            feed(part)
            while (reply := next_reply()) is not False:
                replies.append(reply)
        if len(replies) > count:
            raise ConnectionResetError("the server says more than it was asked")
        return replies

    def close(self) -> None:
        """Close the connection; what is still under way on it is lost."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _exchange(self, request: bytes, count: int, deadline: float) -> list[Any]:
        self.send(request, deadline)
        return self.receive(count, deadline)

    def _connected(self, deadline: float) -> socket.socket:
        where = (self._address.host, self._address.port)
        connection = socket.create_connection(where, timeout=_left(deadline))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is not None:
            connection.settimeout(_left(deadline))
            connection = self._tls.wrap_socket(connection, server_hostname=self._address.host)
        self._reader = self._new_reader()
        return connection


def greeting(address: RedisAddress) -> list[bytes]:
    """What is said first: to a stranger Redis hangs up over a long request, without a reason."""
    password = address.password
    return [*([encoded(b"AUTH", password.encode())] if password else []), encoded(b"PING")]


def check_welcome(replies: Sequence[Any]) -> None:
    """Raise what Redis refuses."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise ConnectionRefusedError(f"it says {reply}")


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
