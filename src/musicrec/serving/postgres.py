"""Connections to one dataset for one event loop, where nobody waits longer than their budget.

psycopg answers a cancelled query by asking the server to cancel it and waiting for that, which a
server that hangs makes seconds. So a query that is late is not cancelled: who asked goes on at
once, the socket is shut under it, and the pool throws the connection away when it notices.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from musicrec.database.address import search_path_option
from musicrec.database.engine import Dataset
from musicrec.features.limit import lateness
from musicrec.serving.parts import PartUnavailable

T = TypeVar("T")
Work = Callable[[AsyncConnection[Any]], Awaitable[T]]

#: Kept open by each worker, and the most there are.
_FEWEST, _MOST = 4, 8

#: How long a statement waits for a lock, such as an import's. Who asked has gone on by then, and
#: a server process that goes on waiting is one fewer for everybody.
_LOCK_MILLISECONDS = 1000

#: After which libpq gives a new connection up; it takes whole seconds, 2 at least.
_CONNECT_SECONDS = 2


class Postgres:
    """Runs short work on connections that see one dataset.

    Args:
        dataset: which, and where; its own connections are not used.
        fewest, most: connections.
    """

    def __init__(self, dataset: Dataset, fewest: int = _FEWEST, most: int = _MOST) -> None:
        logging.getLogger("psycopg.pool").setLevel(logging.ERROR)  # each failure is told by us
        self._address = dataset.address
        options = (
            f"{self._address.parameters.get('options', '')} {search_path_option(dataset.name)}"
            f" -c lock_timeout={_LOCK_MILLISECONDS}"
        )
        conninfo = self._address.conninfo(
            options=options.strip(), connect_timeout=str(_CONNECT_SECONDS)
        )
        self._pool = AsyncConnectionPool(
            conninfo,
            kwargs={"autocommit": True, "prepare_threshold": 0},
            min_size=fewest,
            max_size=most,
            open=False,
            # Who asks next makes the next attempt; the pool's own come ever more seldom.
            reconnect_timeout=0,
        )
        self._running: set[asyncio.Task[Any]] = set()

    async def open(self) -> None:
        """Begin to connect; returns at once, and whether the server is there or not."""
        await self._pool.open(wait=False)

    async def close(self) -> None:
        """Close the connections."""
        await self._pool.close(timeout=1)

    async def run(self, work: Work[T], seconds: float) -> T:
        """What ``work`` gives, run on a connection of its own, in autocommit.

        Work may be begun again on another connection if its own was lost before the first answer:
        it must change nothing when done twice.

        Raises:
            PartUnavailable: there is no connection, it was lost, or time ran out. Then what it was
                about to write may or may not be written.
            psycopg.Error: the server refuses the work.
        """
        attempt = _Attempt(self._pool, time.monotonic() + seconds)
        task = asyncio.create_task(attempt.run(work))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        due = time.monotonic() + seconds
        done, _ = await asyncio.wait({task}, timeout=seconds)
        if not done and (late := lateness(due)):
            done, _ = await asyncio.wait({task}, timeout=late)
        if not done:
            attempt.abandon()
            task.add_done_callback(_let_go)
            raise PartUnavailable(f"Postgres at {self._address.place} did not answer in time")
        try:
            return task.result()
        except PoolTimeout:
            raise PartUnavailable(f"no connection to Postgres at {self._address.place}") from None
        except (psycopg.OperationalError, psycopg.InterfaceError, PoolClosed) as error:
            raise PartUnavailable(str(self._address.failure(error))) from error


class _Attempt:
    """One piece of work, and the connection that it is on."""

    def __init__(self, pool: AsyncConnectionPool[AsyncConnection[Any]], deadline: float) -> None:
        self._pool = pool
        self._deadline = deadline
        self._connection: AsyncConnection[Any] | None = None
        self._is_abandoned = False

    async def run(self, work: Work[T]) -> T:
        while True:
            connection = await self._pool.getconn(max(0.001, self._deadline - time.monotonic()))
            self._connection = connection
            try:
                if self._is_abandoned:  # just then: nobody would end it any more
                    raise PoolTimeout("given up")
                return await work(connection)
            except psycopg.OperationalError:
                # Lost while it was idle, by a restart: the others may be, too, and there is time.
                if not connection.broken or self._is_abandoned:
                    raise
            finally:
                self._connection = None
                await self._pool.putconn(connection)

    def abandon(self) -> None:
        """Nobody waits any more: end it without asking the server, which may hang."""
        self._is_abandoned = True
        if self._connection is None or self._connection.closed:
            return
        # By another descriptor of the same socket: the loop still watches the connection's own.
        with (
            contextlib.suppress(OSError, psycopg.Error),
            socket.socket(fileno=os.dup(self._connection.fileno())) as same,
        ):
            same.shutdown(socket.SHUT_RDWR)


def _let_go(task: asyncio.Task[Any]) -> None:
    """Take note of how abandoned work ended, or asyncio reports it as never retrieved."""
    if not task.cancelled():
        task.exception()
