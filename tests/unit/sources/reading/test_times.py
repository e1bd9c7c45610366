"""Times as files write them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musicrec.errors import ConfigError
from musicrec.sources.reading.times import check_time_format, read_times

MOMENT = datetime(2014, 6, 16, 2, 1, 27, tzinfo=UTC)
PARIS = timezone(timedelta(hours=2))


def micros(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000_000)


def read(values: list[object], time: str) -> list[int | None]:
    times, ok = read_times(pa.array(values), time)
    return [int(t) if good else None for t, good in zip(times, ok, strict=True)]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2014-06-16T02:01:27Z", MOMENT),
        ("2014-06-16 02:01:27", MOMENT),
        (" 2014-06-16T02:01:27z ", MOMENT),
        ("2014-06-16T04:01:27+02:00", MOMENT),
        ("2014-06-16 04:01:27 +0200", MOMENT),
        ("2014-06-16 02:01:27 UTC", MOMENT),
        ("2014-06-16T02:01:27.250Z", MOMENT.replace(microsecond=250_000)),
        ("2014-06-16T02:01:27.123456789Z", MOMENT.replace(microsecond=123_456)),
        ("2014-06-16T02:01", MOMENT.replace(second=0)),
        ("2014-06-16", MOMENT.replace(hour=0, minute=0, second=0)),
    ],
)
def test_iso_times_read_alone_and_among_others(text: str, moment: datetime) -> None:
    assert read([text], "iso") == [micros(moment)]
    assert read(["2000-01-01", text, "2000-01-01T00:00:00Z", "x"], "iso")[1] == micros(moment)


@pytest.mark.parametrize("text", ["", "yesterday", "2014-02-30", "14-06-16", "1402884087", None])
def test_what_is_no_iso_time_is_said_to_be_none(text: str | None) -> None:
    assert read([text, "2014-06-16"], "iso")[0] is None


@pytest.mark.parametrize(
    ("value", "time"),
    [
        ("1402884087", "unix_s"),
        ("1402884087.0", "unix_s"),
        ("1402884087000", "unix_ms"),
        ("1402884087000000", "unix_us"),
        (1402884087, "unix_s"),
        (1402884087.0, "unix_s"),
        (1402884087000, "unix_ms"),
    ],
)
def test_counts_since_1970_read_as_text_and_as_numbers(value: object, time: str) -> None:
    assert read([value], time) == [micros(MOMENT)]


def test_fractions_of_a_second_are_kept() -> None:
    assert read(["1402884087.25"], "unix_s") == [micros(MOMENT) + 250_000]


@pytest.mark.parametrize("text", ["x", "", "inf", "12:30"])
def test_what_is_no_count_is_said_to_be_none(text: str) -> None:
    assert read([text, "5"], "unix_s") == [None, 5_000_000]


def test_a_count_beyond_all_years_stays_in_the_future() -> None:
    far = pa.array([str(2**62), str(-(2**62)), "9" * 30])
    times, ok = read_times(far, "unix_s")
    assert ok.all()
    assert (times > micros(MOMENT)).tolist() == [True, False, True]


def test_a_format_of_ones_own_reads_utc_unless_it_names_a_zone() -> None:
    assert read(["16/06/2014 02:01:27", "x"], "%d/%m/%Y %H:%M:%S") == [micros(MOMENT), None]
    assert read(["2014-06-16 04:01:27 +0200"], "%Y-%m-%d %H:%M:%S %z") == [micros(MOMENT)]


@pytest.mark.parametrize("time", ["iso", "unix_s"])
def test_a_column_of_timestamps_is_taken_as_it_is(time: str) -> None:
    column = pa.array([MOMENT.astimezone(PARIS)], pa.timestamp("ms", "Europe/Paris"))
    assert read_times(column, time)[0].tolist() == [micros(MOMENT)]
    days = pa.array([date(2014, 6, 16)])
    assert read_times(days, time)[0][0] == micros(datetime(2014, 6, 16, tzinfo=UTC))


def test_order_counts_one_second_a_place() -> None:
    assert read(["0", "7"], "order") == [0, 7_000_000]


def test_a_format_nobody_knows_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unix_sec.*did you mean 'unix_s'"):
        check_time_format("unix_sec")


@given(st.lists(st.sampled_from(["2014-06-16", "2014-06-16T00:00:00Z", "x", None]), max_size=80))
def test_bad_times_leave_the_good_ones_alone(values: list[str | None]) -> None:
    times, ok = read_times(pa.array(values, pa.string()), "iso")
    assert ok.tolist() == [value not in ("x", None) for value in values]
    assert np.unique(times[ok]).size <= 1
