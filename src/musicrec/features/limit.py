"""A limit on how long another server may take, fair to it when this process is the slow one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

#: A timer may be so late without anybody having kept the loop: clocks of loops count milliseconds.
_PUNCTUAL_SECONDS = 0.002


def lateness(due: float) -> float:
    """Seconds for which the loop was kept from a timer that was due at a ``time.monotonic()``.

    Answers that came meanwhile lie unread: who waits for one should wait that long again.
    """
    late = time.monotonic() - due
    return late if late > _PUNCTUAL_SECONDS else 0.0


@asynccontextmanager
async def answer_within(seconds: float) -> AsyncIterator[asyncio.Timeout]:
    """As ``asyncio.timeout``, but time in which the loop could not read answers counts half.

    Under load many requests share a loop, and it is they who keep each other waiting: to blame the
    server, and throw its connection away, would make that worse.
    """
    loop = asyncio.get_running_loop()
    due = time.monotonic() + seconds
    timer: asyncio.TimerHandle

    def end() -> None:
        limit.reschedule(loop.time())

    def ring() -> None:
        nonlocal timer
        timer = loop.call_later(lateness(due), end)

    async with asyncio.timeout(None) as limit:
        timer = loop.call_later(seconds, ring)
        try:
            yield limit
        finally:
            timer.cancel()
