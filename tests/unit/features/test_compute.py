"""Window ends: where they lie, and which moments have which."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musicrec.errors import ConfigError
from musicrec.features.compute import window_end, window_ends

HOURS = [1, 2, 3, 4, 6, 8, 12, 24]
MIDNIGHT = datetime(2024, 3, 10, tzinfo=UTC)
US = timedelta(microseconds=1)

moments = st.datetimes(
    datetime(1970, 1, 2),
    datetime(2100, 1, 1),
    timezones=st.integers(-12 * 60, 14 * 60).map(lambda m: timezone(timedelta(minutes=m))),
)


@given(as_of=moments, hours=st.sampled_from(HOURS))
def test_the_latest_end_is_at_most_a_cadence_ago(as_of, hours):
    age = as_of - window_end(as_of, timedelta(hours=hours))
    assert timedelta(0) <= age < timedelta(hours=hours)


@given(as_of=moments, hours=st.sampled_from(HOURS))
def test_ends_are_counted_from_midnight_utc(as_of, hours):
    end = window_end(as_of, timedelta(hours=hours))
    assert end.tzinfo is UTC
    assert (end.hour % hours, end.minute, end.second, end.microsecond) == (0, 0, 0, 0)


def test_an_end_is_its_own_and_a_microsecond_before_it_is_not():
    assert window_end(MIDNIGHT) == MIDNIGHT
    assert window_end(MIDNIGHT - US) == MIDNIGHT - timedelta(days=1)


def test_ends_do_not_move_with_the_clocks_of_a_country():
    eastern = timezone(timedelta(hours=-4))
    assert window_end(datetime(2024, 3, 10, 21, tzinfo=eastern)) == MIDNIGHT + timedelta(days=1)


def test_a_moment_without_a_time_zone_is_refused():
    with pytest.raises(ConfigError, match=r"as_of=2024-03-10T00:00:00 has no time zone; write"):
        window_end(MIDNIGHT.replace(tzinfo=None))


@pytest.mark.parametrize("minutes", [0, 30, 90, 5 * 60, 7 * 60, 48 * 60, -60])
def test_a_cadence_that_does_not_divide_the_day_into_hours_is_refused(minutes):
    with pytest.raises(ConfigError, match=r"cadence=.* use 1, 2, 3, 4, 6, 8, 12 or 24 hours"):
        window_end(MIDNIGHT, timedelta(minutes=minutes))


def test_window_ends_hold_what_both_moments_saw():
    ends = list(window_ends(MIDNIGHT - US, MIDNIGHT + timedelta(days=1)))
    assert ends == [MIDNIGHT + timedelta(days=days) for days in (-1, 0, 1)]
