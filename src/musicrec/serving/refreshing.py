"""Reads what an engine holds of its tracks again, now and then, beside the requests."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from musicrec.serving.engine import Engine

REFRESH_SECONDS = 300.0

#: What could not be read is tried again this soon.
_AGAIN_SECONDS = 5.0

_LOG = logging.getLogger("musicrec.engine")


class Refresher:
    """A thread that surveys the engine that answers.

    Args:
        engines: gives it.
        seconds: between two surveys.
    """

    def __init__(self, engines: Callable[[], Engine | None], seconds: float) -> None:
        self._engines = engines
        self._seconds = seconds
        self._stop = threading.Event()
        # A daemon: a server that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="refresher", daemon=True)

    def start(self) -> None:
        """Start it."""
        self._thread.start()

    def close(self) -> None:
        """Let it end; what it reads just then is dropped."""
        self._stop.set()

    def _run(self) -> None:
        wait = min(self._seconds, _AGAIN_SECONDS)
        waited = 0.0
        while not self._stop.wait(wait):
            waited += wait
            engine = self._engines()
            if engine is None or (waited < self._seconds and not engine.surveyed.problems):
                continue
            waited = 0.0
            try:
                engine.survey(gently=True, stopped=self._stop.is_set)
            except Exception:  # the thread must live on; the engine keeps what it had
                _LOG.exception("the tracks could not be surveyed")
