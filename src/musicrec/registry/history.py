"""What became of a model's versions: one JSON object a line, only ever appended.

::

    {"time": "2026-01-31T04:02:11+00:00", "who": "ann@studio", "what": "promoted",
     "version": 3, "before": 2, "why": "…", "checks": […]}

``what`` is ``registered`` (and made challenger), ``promoted``, ``refused``, ``rolled_back``, or
``found``: the link ``champion`` was switched and nobody wrote it down.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from musicrec.errors import BundleError

What = Literal["registered", "promoted", "refused", "rolled_back", "found"]
Event = dict[str, Any]


def append(path: Path, what: What, version: int, why: str, **more: Any) -> Event:
    """Write down that something was done, by whoever runs this process; it is on disk after."""
    event: Event = {"time": now(), "who": who(), "what": what, "version": version, **more}
    event["why"] = why
    line = json.dumps(event, ensure_ascii=False, allow_nan=False) + "\n"
    with path.open("ab+") as file:
        file.seek(0)
        whole = file.read().rfind(b"\n") + 1
        file.truncate(whole)  # half a line, which a kill has left
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())
    return event


def events(path: Path) -> list[Event]:
    """All that was written down, oldest first.

    Raises:
        BundleError: a line is damaged.
    """
    read: list[Event] = []
    if not path.exists():
        return read
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        if not line.endswith(b"\n"):  # it is being written
            break
        try:
            event = json.loads(line)
            event["what"], event["version"]
        except (ValueError, TypeError, KeyError) as error:
            raise BundleError(
                f"line {number} of {path} is damaged; take it out, then try again"
            ) from error
        read.append(event)
    return read


def champions(told: Iterable[Event]) -> list[int]:
    """The version that is champion, last, and before it those that a rollback goes back to.

    Who was rolled back is not gone back to: after 1, 2, 3 and a rollback these are 1 and 2.
    """
    stack: list[int] = []
    for event in told:
        if event["what"] in ("promoted", "found"):
            stack.append(int(event["version"]))
        elif event["what"] == "rolled_back" and stack:
            stack.pop()
    return stack


def who() -> str:
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):  # a container's user without a name
        return f"{os.getuid()}@{socket.gethostname()}"


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
