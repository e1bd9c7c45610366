"""A door to Redis whose requests a test can change, hold back or break off."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import threading
from collections.abc import Callable
from typing import Self

from musicrec.database.redis_address import RedisAddress

#: What becomes of bytes on their way to Redis; None breaks the connection.
Passage = Callable[[bytes], bytes | None]


class BreakableRedis:
    """Listens on a port of its own and forwards to ``target``; replies pass as they are.

    Attributes:
        address: where to connect.
        passage: may be exchanged at any time.
        stalled: set once ``stall`` has held bytes back.
    """

    def __init__(self, target: RedisAddress) -> None:
        self._target = (target.host, target.port)
        self._door = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.passage: Passage = lambda sent: sent
        self.stalled = threading.Event()
        port = self._door.getsockname()[1]
        self.address = dataclasses.replace(target, host="127.0.0.1", port=port)
        threading.Thread(target=self._serve, daemon=True).start()

    def stall(self, after: int) -> None:
        """Forward that many more bytes, then hold everything back."""
        left = after

        def passage(sent: bytes) -> bytes:
            nonlocal left
            passed = sent[:left]
            left -= len(passed)
            if not left:
                self.stalled.set()
            return passed

        self.passage = passage

    def die(self, after: int) -> None:
        """Forward that many more bytes, then break off and refuse everyone."""
        left = after

        def passage(sent: bytes) -> bytes | None:
            nonlocal left
            left -= len(sent)
            if left > 0:
                return sent
            self.close()
            return None

        self.passage = passage

    def close(self) -> None:
        # A closed listener goes on accepting while another thread waits in accept.
        with contextlib.suppress(OSError):
            self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()
        for one in self._open:
            _shut(one)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._door.accept()
                server = socket.create_connection(self._target)
                self._open += [client, server]
                there = (client, server, lambda sent: self.passage(sent))
                back = (server, client, lambda sent: sent)
                for way in (there, back):
                    threading.Thread(target=_forward, args=way, daemon=True).start()


def _forward(source: socket.socket, target: socket.socket, passage: Passage) -> None:
    with contextlib.suppress(OSError):
        while sent := source.recv(1 << 16):
            passed = passage(sent)
            if passed is None:
                break
            target.sendall(passed)
    _shut(source)
    _shut(target)


def _shut(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
