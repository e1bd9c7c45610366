"""The moment of a request, by what it says and else by the plays."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest

from musicrec.features.context import COLUMNS, Context, of_request
from musicrec.serving.listening import listening_of_items
from musicrec.serving.moment import microseconds, moment_of

NOW = datetime(2024, 3, 3, 23, 30, 0, 250, tzinfo=UTC)  # a Sunday
MINUTE = 60_000_000


def listening(*minutes_ago: float):
    times = np.array([microseconds(NOW) - round(m * MINUTE) for m in minutes_ago], np.int64)
    return listening_of_items(np.arange(1, len(times) + 1), times)


def test_what_a_request_does_not_say_is_the_clock_of_utc():
    east = NOW.astimezone(timezone(timedelta(hours=9)))
    moment = moment_of(listening(1), east, Context())
    assert (moment.hour, moment.weekday, moment.device) == (23, 6, None)
    assert moment.at == microseconds(NOW) == round(NOW.timestamp() * 1e6)
    said = moment_of(listening(1), east, Context(8, 0, "android"))
    assert (said.hour, said.weekday, said.device) == (8, 0, "android")


@pytest.mark.parametrize(
    ("minutes_ago", "session"),
    [
        ((80, 50, 20, 5), [3, 4]),
        ((80, 51, 22, 5), [1, 2, 3, 4]),
        ((35, 30), []),
        ((29.99,), [1]),
        ((3, 0, 0), [1, 2, 3]),
        ((), []),
    ],
)
def test_a_session_is_what_runs_without_a_gap_of_half_an_hour(minutes_ago, session):
    moment = moment_of(listening(*minutes_ago), NOW, Context())
    assert moment.session is not None
    assert moment.session.tolist() == session


def test_an_untimed_listening_has_no_session_unless_the_request_says_so():
    plays = listening_of_items(np.array([4, 5]), None)
    moment = moment_of(plays, NOW, Context())
    assert moment.session is None
    columns = moment.context_columns(np.array([4, 9]), *[np.zeros(2, np.float32)] * 2)
    assert np.isnan(columns[:, COLUMNS.index("context_aware_features__session_plays")]).all()
    assert np.isnan(columns[:, COLUMNS.index("context_aware_features__is_in_session")]).all()
    assert moment_of(plays, NOW, Context(), [5, 6, 5]).session.tolist() == [5, 6, 5]


def test_the_columns_of_the_moment_are_those_of_the_online_store():
    energy, taste = np.array([0.25, np.nan], np.float32), np.array([0.5, 0.5], np.float32)
    moment = moment_of(listening(3, 2), NOW, Context(None, None, "iPhone"))
    expected = of_request(Context(23, 6, "iPhone", ["1", "2"]), ["2", "7"], energy, taste)
    np.testing.assert_array_equal(moment.context_columns(np.array([2, 7]), energy, taste), expected)
