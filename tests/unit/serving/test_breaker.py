"""A part that fails is left alone for a moment, and asked again."""

from __future__ import annotations

import pytest

from musicrec.serving.breaker import Breaker


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        assert breaker.may_ask()
        breaker.failed("it hangs")


def test_a_part_is_asked_until_it_fails_so_many_times_in_a_row(clock):
    breaker = Breaker(3, 1.0, clock=clock)
    fail(breaker, 2)
    breaker.succeeded()
    fail(breaker, 2)
    assert breaker.may_ask()
    breaker.failed("it hangs")
    assert not breaker.may_ask()
    assert breaker.is_resting
    assert breaker.why == "it hangs"


def test_after_its_rest_one_request_probes_and_the_others_do_without(clock):
    breaker = Breaker(3, 1.0, clock=clock)
    fail(breaker, 3)
    clock.now = 1.0
    assert breaker.may_ask()
    assert not breaker.may_ask()


def test_a_probe_that_fails_begins_another_rest(clock):
    breaker = Breaker(3, 1.0, clock=clock)
    fail(breaker, 3)
    clock.now = 1.5
    fail(breaker, 1)
    clock.now = 2.4
    assert not breaker.may_ask()
    clock.now = 2.5
    assert breaker.may_ask()


def test_a_probe_that_is_answered_ends_the_rest(clock):
    breaker = Breaker(3, 1.0, clock=clock)
    fail(breaker, 3)
    clock.now = 1.0
    assert breaker.may_ask()
    breaker.succeeded()
    assert not breaker.is_resting
    fail(breaker, 2)
    assert breaker.may_ask()


def test_whoever_watches_is_told_of_each_rest_once(clock):
    said: list[bool] = []
    breaker = Breaker(2, 1.0, say=said.append, clock=clock)
    fail(breaker, 2)
    clock.now = 1.0
    fail(breaker, 1)
    clock.now = 2.0
    breaker.may_ask()
    breaker.succeeded()
    breaker.succeeded()
    assert said == [True, False]
