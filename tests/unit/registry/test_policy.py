import pytest

from musicrec.errors import BundleError, ConfigError
from musicrec.metrics.significance import Interval
from musicrec.registry.policy import Policy, answers, data, latency, not_worse, verdict


@pytest.mark.parametrize(
    ("low", "margin", "is_passed"),
    [(0.001, 0.0, True), (0.0, 0.0, False), (-0.009, 0.02, True), (-0.011, 0.02, False)],
)
def test_the_interval_must_lie_above_what_may_be_lost(low, margin, is_passed):
    difference = Interval(low + 0.01, low, low + 0.02)
    check = not_worse(difference, champion=0.5, targets=100, policy=Policy(margin=margin))
    assert check.is_passed == is_passed
    assert f"{low:+.4f} .. {low + 0.02:+.4f}" in check.said


def test_a_single_target_tells_nothing():
    assert not not_worse(None, champion=0.5, targets=1, policy=Policy()).is_passed


def test_an_answer_must_come_in_time():
    assert latency(99.0, Policy(max_latency_ms=100)).is_passed
    slow = latency(101.0, Policy(max_latency_ms=100))
    assert not slow.is_passed
    assert slow.said == "a single answer takes 101.0 ms (median), allowed are 100 ms"


def test_questions_from_other_data_are_no_fair_ones():
    assert data("a", "a", is_refit=False).is_passed
    assert not data("a", "b", is_refit=False).is_passed
    assert not data("a", "a", is_refit=True).is_passed


def test_nothing_more_is_asked_of_a_bundle_that_does_not_answer():
    def checks():
        yield answers(BundleError("torn"))
        raise AssertionError("asked on")

    given = verdict(checks())
    assert (given.is_passed, given.may_be_forced, given.why) == (False, False, "answers: torn")


def test_a_person_may_pass_over_a_slow_answer():
    given = verdict([answers(None), latency(500, Policy())])
    assert (given.is_passed, given.may_be_forced) == (False, True)
    assert given.why.startswith("latency: a single answer takes 500.0 ms")


@pytest.mark.parametrize("setting", [{"margin": -0.1}, {"margin": 1.0}, {"max_latency_ms": 0}])
def test_a_policy_that_makes_no_sense_is_refused(setting):
    with pytest.raises(ConfigError, match="policy"):
        Policy(**setting)
