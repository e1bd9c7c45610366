"""When the next call may be made: rate limits set or learned, and one pause for all.

Each limit is kept by spacing: a call is let through at the moment its share of the limit is due,
with ``SLACK_SECONDS`` of calls in hand, so that no window of a minute holds more than the limit,
whether the provider counts by windows or by a leaking bucket. Calls are let through in the order
in which they came.

Nothing is known before the first reply. Until then ``SCOUTS`` calls may be made, and the limits in
their replies' headers set the pace of the rest. A 429 all the same means that somebody else uses
the account, or that the headers do not tell all: then everybody waits as long as the provider says,
and goes on a tenth slower; a tenth of the pace comes back each minute.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

from musicrec.graph.provider import Limits

#: Of a limit that is used: clocks differ, and calls are on their way for different times.
SHARE = 0.98
#: How much of a limit's calls may be made up for at once.
SLACK_SECONDS = 0.25
#: Calls before anything is known.
SCOUTS = 4
#: Where a 429 does not say how long to wait: doubled with each further one.
PAUSE_SECONDS, MAX_PAUSE_SECONDS = 1.0, 60.0


@dataclass
class _Rate:
    """A limit a minute, and when the next unit of it is due."""

    per_minute: float | None
    is_set: bool
    due: float = 0.0

    def wait(self, now: float) -> float:
        return max(0.0, self.due - SLACK_SECONDS - now) if self.per_minute else 0.0

    def take(self, amount: float, now: float, share: float) -> None:
        if self.per_minute:
            self.due = max(self.due, now) + amount * 60 / (self.per_minute * share)

    def learn(self, per_minute: int | None) -> None:
        if per_minute and not self.is_set:
            self.per_minute = float(per_minute)


class Pace:
    """Shared by all calls of a run.

    Args:
        requests_per_minute, input_tokens_per_minute, output_tokens_per_minute: what a person has
            set, and then headers do not change it; None learns it.
        is_known: that there is nothing to learn, so that no scouts go ahead.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        requests_per_minute: float | None = None,
        input_tokens_per_minute: float | None = None,
        output_tokens_per_minute: float | None = None,
        *,
        is_known: bool = False,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._clock = clock or asyncio.get_running_loop().time
        limits = (requests_per_minute, input_tokens_per_minute, output_tokens_per_minute)
        self._rates = [_Rate(limit, limit is not None) for limit in limits]
        self._turns = asyncio.Lock()
        self._is_known = asyncio.Event()
        self._scouts = 0
        self._paused_until = 0.0
        self._pauses = 0
        self._share, self._share_at = SHARE, 0.0
        if is_known or requests_per_minute is not None:
            self._is_known.set()

    async def turn(self, input_tokens: int, output_tokens: int) -> None:
        """Wait until a call of about so many tokens may be made."""
        async with self._turns:
            if not self._is_known.is_set():
                self._scouts += 1
                if self._scouts > SCOUTS:
                    await self._is_known.wait()
            while (wait := self._wait()) > 0:
                await asyncio.sleep(wait)
            now = self._clock()
            for rate, amount in zip(self._rates, (1, input_tokens, output_tokens), strict=True):
                rate.take(amount, now, self._current_share(now))

    def learn(self, limits: Limits) -> None:
        """A reply came, with what its headers say."""
        told = (limits.requests, limits.input_tokens, limits.output_tokens)
        for rate, limit in zip(self._rates, told, strict=True):
            rate.learn(limit[0] if limit else None)
        self._pauses = 0
        self._is_known.set()

    def failed(self) -> None:
        """A call came to nothing, and not for going too fast: the scouts need not be waited for."""
        self._is_known.set()

    def limited(self, retry_after: float | None) -> float:
        """A 429: everybody waits.

        Returns:
            For how long, from now.
        """
        now = self._clock()
        if now >= self._paused_until:  # those in flight together are refused together: once
            self._share = max(0.1, self._current_share(now) * 0.9)
            self._share_at = now
            self._pauses += 1
        most = min(MAX_PAUSE_SECONDS, PAUSE_SECONDS * 2 ** (self._pauses - 1))
        pause = random.uniform(0, most) if retry_after is None else retry_after  # noqa: S311
        self._paused_until = max(self._paused_until, now + pause)
        self._is_known.set()
        return self._paused_until - now

    def _wait(self) -> float:
        now = self._clock()
        return max(self._paused_until - now, *(rate.wait(now) for rate in self._rates))

    def _current_share(self, now: float) -> float:
        return min(SHARE, self._share + 0.1 * max(0.0, now - self._share_at) / 60)


def backoff(
    attempt: int, retry_after: float | None, *, base: float = 1.0, cap: float = 30.0
) -> float:
    """Seconds before try ``attempt + 1``, from 1: full jitter on top of what was asked for."""
    spread = random.uniform(0, min(cap, base * 2.0 ** (attempt - 1)))  # noqa: S311
    return (retry_after or 0.0) + spread
