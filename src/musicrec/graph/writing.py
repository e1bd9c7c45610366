"""One connection that writes for all calls in flight, from a thread of its own, in groups.

A commit waits for the disk. What is asked for while one waits goes into the next transaction
together, so that the number of commits does not grow with the number of calls, and none of them
holds the event loop. Whoever awaits ``do`` knows that its rows are on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, TypeVar

import psycopg

from musicrec.database.address import search_path_option
from musicrec.database.engine import Dataset

#: Writes in one transaction, at most: what a rollback has to do again.
MAX_GROUP = 256

Connection = psycopg.Connection[Any]
Result = TypeVar("Result")
_Item = tuple[Callable[[Connection], Any], "asyncio.Future[Any]"]


class Writer:
    """Runs writes one after the other; close it to let the connection and its locks go."""

    def __init__(self, dataset: Dataset) -> None:
        self._address = dataset.address
        self._connection = dataset.address.connect(options=search_path_option(dataset.name))
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="graph writer", daemon=True)
        self._thread.start()

    async def do(self, write: Callable[[Connection], Result]) -> Result:
        """What ``write`` returns, once it is committed.

        Args:
            write: executes statements, and no more: it may be run twice, after a rollback. It
                stands alone or among others in a transaction.

        Raises:
            DatabaseError: the server is lost or refuses; what ``write`` raises goes through.
        """
        future: asyncio.Future[Result] = self._loop.create_future()
        self._queue.put((write, future))
        return await future

    async def close(self) -> None:
        """Finish what was asked for, and disconnect."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        try:
            while group := self._next_group():
                self._settle(group)
        finally:
            self._connection.close()

    def _next_group(self) -> list[_Item]:
        group: list[_Item] = []
        item = self._queue.get()
        while item is not None:
            group.append(item)
            if len(group) == MAX_GROUP:
                return group
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return group
        if group:
            self._queue.put(None)  # seen again after this group
        return group

    def _settle(self, group: list[_Item]) -> None:
        try:
            done = [(future, result) for future, result in self._together(group)]
        except Exception:
            # One of them was refused: each alone, so that only that one fails.
            for item in group:
                self._tell([self._alone(item)])
        else:
            self._tell(done)

    def _together(self, group: Sequence[_Item]) -> list[tuple[asyncio.Future[Any], Any]]:
        with self._connection.transaction():
            return [(future, write(self._connection)) for write, future in group]

    def _alone(self, item: _Item) -> tuple[asyncio.Future[Any], Any]:
        write, future = item
        try:
            with self._connection.transaction():
                return future, write(self._connection)
        except psycopg.OperationalError as error:
            return future, _Failure(self._address.failure(error))
        except Exception as error:
            return future, _Failure(error)

    def _tell(self, results: list[tuple[asyncio.Future[Any], Any]]) -> None:
        def tell() -> None:
            for future, result in results:
                if future.done():  # whoever asked was cancelled
                    continue
                if isinstance(result, _Failure):
                    future.set_exception(result.error)
                else:
                    future.set_result(result)

        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(tell)


class _Failure:
    def __init__(self, error: Exception) -> None:
        self.error = error


@contextlib.asynccontextmanager
async def writer(dataset: Dataset) -> AsyncIterator[Writer]:
    """A ``Writer`` for the time of a ``with``.

    Raises:
        DatabaseError: the server cannot be reached.
    """
    opened = Writer(dataset)
    try:
        yield opened
    finally:
        await opened.close()


@contextlib.contextmanager
def connection_to(dataset: Dataset) -> Iterator[Connection]:
    """A connection for a few statements, in one transaction.

    Raises:
        DatabaseError: the server cannot be reached, is lost or refuses.
    """
    with dataset.address.connect(options=search_path_option(dataset.name)) as connection:
        try:
            yield connection
        except psycopg.OperationalError as error:
            raise dataset.address.failure(error) from error
