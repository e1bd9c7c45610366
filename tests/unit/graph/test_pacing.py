"""Rate limits and pauses that all calls of a run share."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musicrec.graph import pacing
from musicrec.graph.pacing import SHARE, SLACK_SECONDS, Pace, backoff
from musicrec.graph.provider import Limits


class Clock(asyncio.SelectorEventLoop):
    """A loop whose time goes on by itself as soon as everybody waits."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:
            self._now = max(self._now, self._scheduled[0].when())
        super()._run_once()


def times_of(pace_of, calls: int, input_tokens: int = 0) -> list[float]:
    """When each of ``calls``, all wanted at once, is let through."""
    times: list[float] = []

    async def call(pace: Pace) -> None:
        await pace.turn(input_tokens, 0)
        times.append(asyncio.get_running_loop().time())

    async def all_of_them() -> None:
        pace = pace_of()
        async with asyncio.TaskGroup() as group:
            for _ in range(calls):
                group.create_task(call(pace))

    with asyncio.Runner(loop_factory=Clock) as runner:
        runner.run(all_of_them())
    return times


@pytest.mark.slow
@given(limit=st.integers(1, 6000))
def test_no_minute_holds_more_calls_than_the_limit(limit: int) -> None:
    calls = min(3 * limit, 500)
    times = times_of(lambda: Pace(requests_per_minute=limit), calls)
    for first, last in zip(times, times[limit:], strict=False):
        assert last - first > 60


def test_a_limit_is_used_to_95_in_a_hundred() -> None:
    times = times_of(lambda: Pace(requests_per_minute=600), 1200)
    assert 1200 / times[-1] * 60 >= 0.95 * 600


def test_tokens_are_limited_as_calls_are() -> None:
    times = times_of(lambda: Pace(6000, input_tokens_per_minute=60_000), 60, input_tokens=3000)
    apart = 3000 / (60_000 * SHARE) * 60
    gaps = [after - before for before, after in itertools.pairwise(times[1:])]
    assert min(gaps) == pytest.approx(apart)
    assert times[1] == pytest.approx(apart - SLACK_SECONDS)


def test_four_go_ahead_and_the_others_keep_the_limit_that_they_learn() -> None:
    times: list[float] = []

    async def call(pace: Pace) -> None:
        await pace.turn(0, 0)
        times.append(asyncio.get_running_loop().time())
        await asyncio.sleep(1)
        pace.learn(Limits(requests=(60, 50, 10.0)))

    async def all_of_them() -> None:
        pace = Pace()
        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(call(pace))

    with asyncio.Runner(loop_factory=Clock) as runner:
        runner.run(all_of_them())
    assert times[:4] == [0, 0, 0, 0]
    assert times[4] == pytest.approx(1)
    assert times[7] - times[5] == pytest.approx(2 / SHARE)


def test_after_a_429_everybody_waits_as_long_as_it_says() -> None:
    def paused() -> Pace:
        pace = Pace(requests_per_minute=6000)
        pace.limited(7.5)
        return pace

    assert min(times_of(paused, 3)) >= 7.5


def test_a_limit_that_a_person_set_is_not_changed_by_headers() -> None:
    def told() -> Pace:
        pace = Pace(requests_per_minute=60)
        pace.learn(Limits(requests=(60_000, 60_000, 0.0)))
        return pace

    assert times_of(told, 11)[-1] > 9


def test_calls_that_are_refused_together_slow_the_run_down_once() -> None:
    async def refused_together() -> tuple[float, float]:
        pace = Pace(requests_per_minute=60)
        pauses = [pace.limited(None) for _ in range(50)]
        return max(pauses), pace._current_share(0)

    with asyncio.Runner(loop_factory=Clock) as runner:
        pause, share = runner.run(refused_together())
    assert pause <= pacing.PAUSE_SECONDS
    assert share == pytest.approx(SHARE * 0.9)


@given(attempt=st.integers(1, 60), asked=st.floats(0, 1000))
def test_jitter_comes_on_top_of_what_is_asked_for_and_is_bounded(
    attempt: int, asked: float
) -> None:
    assert asked <= backoff(attempt, asked) <= asked + 30
