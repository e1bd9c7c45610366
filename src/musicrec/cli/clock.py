# ruff: noqa: S603  commands are lists, given to no shell
"""Calls commands when they are due, where there is no cron.

In a container cron wants root, gives its jobs no environment and mails what they have to say. This
needs nothing of the kind: what is called has this process's environment and its output.
"""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

_MINUTE = timedelta(minutes=1)

#: A machine that slept longer than this has missed what was due: as with cron.
_LATE = timedelta(hours=1)

#: A year and a day: whatever names a day that there is comes round within.
_HORIZON = 366 * 24 * 60


@dataclass(frozen=True, slots=True)
class Call:
    """A command and when it is due.

    Attributes:
        due: minute, hour, day, month and weekday (Sunday is 0) as cron writes them, each a number
            or ``*``; in the local time zone.
    """

    name: str
    due: str
    command: tuple[str, ...]


def is_due(due: str, at: datetime) -> bool:
    """Whether it is due in the minute of ``at``, which is in local time."""
    fields = (at.minute, at.hour, at.day, at.month, at.isoweekday() % 7)
    return all(text in ("*", str(field)) for text, field in zip(due.split(), fields, strict=True))


def next_due(due: str, after: datetime) -> datetime:
    """The first minute after ``after``'s in which it is due, in local time.

    Raises:
        ValueError: there is none within a year.
    """
    for minute in _minutes(after, after + _HORIZON * _MINUTE):
        if is_due(due, minute.astimezone()):
            return minute.astimezone()
    raise ValueError(f"{due!r} is due at no time within a year")


def _minutes(after: datetime, until: datetime) -> Iterator[datetime]:
    """Beginnings of the real minutes after ``after``, up to ``until``; clocks may skip some."""
    minute = after.astimezone(UTC).replace(second=0, microsecond=0) + _MINUTE
    while minute <= until:
        yield minute
        minute += _MINUTE


def follow(
    calls: Sequence[Call],
    beat: Path,
    *,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    pause: Callable[[float], bool] | None = None,
) -> None:
    """Call each when it is due, beside one another, until SIGTERM or Ctrl-C; then end them all.

    Args:
        beat: written every minute, so that others see that this is alive.
        pause: waits so many seconds, and says whether to stop.
    """
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    beat.parent.mkdir(parents=True, exist_ok=True)
    seen = now()
    running: list[subprocess.Popen[bytes]] = []
    for call in calls:
        due = next_due(call.due, seen)
        print(f"{call.name}: next at {due:%Y-%m-%d %H:%M %Z}", flush=True)
    try:
        while True:
            beat.write_text(f"{time.time():.0f}\n")
            current = now()
            for minute in _minutes(max(seen, current - _LATE), current):
                due_now = [call for call in calls if is_due(call.due, minute.astimezone())]
                running += [subprocess.Popen(call.command) for call in due_now]
            seen = current
            running = [child for child in running if child.poll() is None]
            rest = 60.0 - current.second - current.microsecond / 1e6
            if (pause or stopped.wait)(rest):
                return
    finally:
        for child in running:
            child.terminate()
        for child in running:
            child.wait()
