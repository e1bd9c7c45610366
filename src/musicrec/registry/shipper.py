"""Sends a journal while it is being written, beside a training that never waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from musicrec.errors import TrackingError
from musicrec.registry.shipping import Shipment

#: Between two looks into the journal, and after a failure: first and longest.
LOOK_SECONDS, FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 2.0, 60.0


class Shipper:
    """A thread that sends what a shipment's journal is told.

    Args:
        shipment: the journal's; nobody else sends it meanwhile.
        warn: is told once why nothing arrives, if it is so.

    Attributes:
        failure: why the newest attempt failed; None after one that went well.
    """

    def __init__(self, shipment: Shipment, warn: Callable[[str], None]) -> None:
        self.shipment = shipment
        self.failure: str | None = None
        self._warn = warn
        self._has_warned = False
        self._num_attempts = 0
        self._is_last = threading.Event()
        self._wake = threading.Event()
        # A daemon: a server that hangs must not keep the process that has finished.
        self._thread = threading.Thread(target=self._run, name="to MLflow", daemon=True)

    def start(self, *, ready: bool) -> None:
        """Begin.

        Args:
            ready: only come back after a first attempt. A store without a server takes a moment
                to make, with tools (Alembic) that two threads cannot use at a time.
        """
        if ready:
            self._attempt()
        self._thread.start()

    def finish(self) -> bool:
        """Whether all has arrived, after waiting as long as a server that is well needs.

        One that failed before gets a last attempt of ``PATIENCE_SECONDS`` at most. The thread
        ends by itself.
        """
        attempts_before = self._num_attempts
        self.shipment.grant()
        self._is_last.set()
        self._wake.set()
        while self._thread.is_alive() and time.monotonic() < self.shipment.due:
            self._thread.join(0.02)
            if self.failure is not None and self._num_attempts > attempts_before:
                break
        return self.shipment.is_done

    def _run(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            is_last = self._is_last.is_set()
            if not self.shipment.is_done:
                self._attempt()
            if is_last:
                return
            if self.failure is None:
                pause, wait = FIRST_PAUSE_SECONDS, LOOK_SECONDS
            else:
                pause, wait = min(2 * pause, LONGEST_PAUSE_SECONDS), pause
            self._wake.wait(wait)

    def _attempt(self) -> None:
        try:
            self.shipment.send()
            self.failure = None
        except TrackingError as error:
            self.failure = str(error)
            if not self._has_warned:
                self._has_warned = True
                self._warn(self.failure)
        self._num_attempts += 1
