"""Leaves a part alone for a moment that failed or hung, so that not everybody waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Failures in a row after which a part is left alone, and for how long.
FAILURES, REST_SECONDS = 3, 1.0


class Breaker:
    """Says whether a part is to be asked; whoever asked tells how it went.

    After ``failures`` in a row the part rests for ``rest_seconds``. Then one request at a time
    probes it while the others still do without: if it answers, all ask again, else it rests anew.

    Args:
        say: told when a rest begins (true) and when it is over.
        clock: seconds, for tests.
    """

    def __init__(
        self,
        failures: int = FAILURES,
        rest_seconds: float = REST_SECONDS,
        *,
        say: Callable[[bool], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = failures
        self._rest_seconds = rest_seconds
        self._say = say
        self._clock = clock
        self._failures = 0
        self._resting_until: float | None = None
        self.why: str = ""
        """Of the newest failure, in one line."""

    @property
    def is_resting(self) -> bool:
        """Whether the part is left alone, probes apart."""
        return self._resting_until is not None

    def may_ask(self) -> bool:
        """Whether to ask the part now; if so, ``succeeded`` or ``failed`` follows.

        Neither does where the caller went away meanwhile: that says nothing of the part, and the
        next probe comes after another rest.
        """
        if self._resting_until is None:
            return True
        now = self._clock()
        if now < self._resting_until:
            return False
        self._resting_until = now + self._rest_seconds  # this one probes; the others wait for it
        return True

    def succeeded(self) -> None:
        """The part answered."""
        self._failures = 0
        if self._resting_until is not None:
            self._resting_until = None
            if self._say is not None:
                self._say(False)

    def failed(self, why: str) -> None:
        """The part did not answer, or not in time."""
        self.why = why
        self._failures += 1
        if self._failures < self._most:
            return
        was_resting = self.is_resting
        self._resting_until = self._clock() + self._rest_seconds
        if not was_resting and self._say is not None:
            self._say(True)
