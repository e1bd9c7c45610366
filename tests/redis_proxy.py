"""A real network in front of a server: one that can stall, lose connections or answer anything.

Redis' in most tests, Postgres' in some.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from types import TracebackType


class Proxy:
    """Listens on a loopback port and hands on what comes, both ways.

    Args:
        upstream: the server's port, or its address, or the path of its socket.
        tls: speak TLS to clients by this.

    Attributes:
        port: where to connect.
        num_connections: how many there have been.
    """

    def __init__(
        self, upstream: int | tuple[str, int] | str, tls: ssl.SSLContext | None = None
    ) -> None:
        self._upstream = ("127.0.0.1", upstream) if isinstance(upstream, int) else upstream
        self._tls = tls
        self._flows = threading.Event()
        self._flows.set()
        self._open: list[socket.socket] = []
        self.num_connections = 0
        self.port: int = 0
        self.up()

    def down(self) -> None:
        """As a server that was killed: every connection is lost, and none is made."""
        _end(self._listener)
        self.cut()

    def up(self) -> None:
        """Listen, where it did before; the first time, wherever there is room."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def hold(self) -> None:
        """Keep every reply back, until ``release``; requests pass."""
        self._flows.clear()

    def release(self) -> None:
        self._flows.set()

    def cut(self) -> None:
        """Lose all connections; one that is made while they are being lost is not among them."""
        lost, self._open = self._open, []
        for end in lost:
            _end(end)

    def close(self) -> None:
        _end(self._listener)
        self.cut()
        self._flows.set()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                self.num_connections += 1
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self._tls is not None:
                client = self._tls.wrap_socket(client, server_side=True)
            server = self._reached()
            self._open += [client, server]
            there = threading.Thread(target=self._pump, args=(client, server, None), daemon=True)
            there.start()
            self._pump(server, client, self._flows)

    def _reached(self) -> socket.socket:
        if isinstance(self._upstream, tuple):
            return socket.create_connection(self._upstream)
        server = socket.socket(socket.AF_UNIX)
        server.connect(self._upstream)
        return server

    def _pump(self, one: socket.socket, other: socket.socket, gate: threading.Event | None) -> None:
        with contextlib.suppress(OSError):
            while part := one.recv(1 << 16):
                if gate is not None:
                    gate.wait()
                other.sendall(part)
        _end(one)
        _end(other)


class Impostor:
    """A server that does with each connection whatever it is told to."""

    def __init__(self, behave: Callable[[socket.socket], None]) -> None:
        self._behave = behave
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Impostor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _end(self._listener)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            self._behave(client)


def _end(connection: socket.socket) -> None:
    """Also wakes whoever waits on it."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
