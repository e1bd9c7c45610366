"""Threads for work that blocks, which never keep the process from ending.

``ThreadPoolExecutor`` waits for its threads when the interpreter ends: one that waits for a server
that hangs would keep a service that was told to stop for as long.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class Daemons:
    """So many threads, which start with the first work; they take it in the order it comes.

    Args:
        num: threads.
        name: of each.
    """

    def __init__(self, num: int, name: str) -> None:
        self._num = num
        self._name = name
        self._queue: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None]
        self._queue = queue.SimpleQueue()
        self._is_started = False

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """What ``work`` gives, in time; if it is cancelled before its turn, it is not begun."""
        if not self._is_started:
            self._is_started = True
            for _ in range(self._num):
                threading.Thread(target=self._run, name=self._name, daemon=True).start()
        future: Future[T] = Future()
        self._queue.put((work, future))
        return future

    def close(self) -> None:
        """Let each end after what it does, without waiting for that."""
        for _ in range(self._num):
            self._queue.put(None)

    def _run(self) -> None:
        while (asked := self._queue.get()) is not None:
            work, future = asked
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)
