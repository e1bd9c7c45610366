"""What cron does, without cron."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest

from musicrec.cli import schedule
from musicrec.cli.clock import Call, follow, is_due, next_due


@pytest.fixture(autouse=True)
def _own_signals():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def utc(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def writing(path, due):
    return Call("write", due, (sys.executable, "-c", f"open({str(path)!r}, 'a').write('x')"))


@pytest.mark.parametrize(
    ("job", "at"),
    [
        ("materialize", "2026-11-26 03:10"),
        ("retrain", "2026-11-29 04:00"),  # a Sunday
        ("graph", "2026-12-01 05:00"),
    ],
)
def test_a_job_is_next_due_when_its_line_says(job, at, utc):
    after = datetime(2026, 11, 25, 12, 30, 15, tzinfo=UTC)
    assert f"{next_due(schedule.JOBS[job].due, after):%Y-%m-%d %H:%M}" == at


def test_a_time_on_the_very_minute_comes_round_only_a_day_later(utc):
    after = datetime(2026, 11, 25, 3, 10, 0, tzinfo=UTC)
    assert next_due("10 3 * * *", after) - after == timedelta(days=1)


def test_sunday_is_cron_s_day_zero():
    assert is_due("0 4 * * 0", datetime(2026, 11, 29, 4, 0))
    assert not is_due("0 4 * * 0", datetime(2026, 11, 30, 4, 0))


def test_a_day_that_never_comes_is_an_error_and_no_endless_search(utc):
    with pytest.raises(ValueError, match="no time within a year"):
        next_due("0 0 31 2 *", datetime(2026, 11, 25, tzinfo=UTC))


def followed(calls, beat, *times):
    """Follow with a clock that shows ``times`` one after the other; children may end in between."""
    shown = iter(times)
    left = len(times) - 2  # the first is when it begins
    children = []

    def pause(_):
        nonlocal left
        left -= 1
        return left < 0

    real = subprocess.Popen
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("subprocess.Popen", lambda c: children.append(real(c)) or children[-1])
        patch.setattr(real, "terminate", lambda self: None)  # let them do their work here
        follow(calls, beat, now=lambda: next(shown), pause=pause)
    return children


def test_a_command_is_called_once_in_its_minute(tmp_path, utc):
    start = datetime(2026, 11, 25, 3, 9, 50, tzinfo=UTC)
    times = [start + timedelta(seconds=s) for s in (0, 1, 11, 30, 71)]
    followed([writing(tmp_path / "out", "10 3 * * *")], tmp_path / "beat", *times)
    assert (tmp_path / "out").read_text() == "x"
    assert (tmp_path / "beat").exists()


def test_a_minute_that_a_busy_machine_overslept_is_made_up_for(tmp_path, utc):
    start = datetime(2026, 11, 25, 3, 9, 50, tzinfo=UTC)
    times = [start, start, start + timedelta(minutes=20)]
    followed([writing(tmp_path / "out", "10 3 * * *")], tmp_path / "beat", *times)
    assert (tmp_path / "out").read_text() == "x"


def test_stopping_ends_what_was_called(tmp_path):
    start = datetime.now(UTC)
    sleeper = Call("sleep", "* * * * *", ("sleep", "60"))
    shown = iter([start, start + timedelta(minutes=1)])
    children = []
    real = subprocess.Popen
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("subprocess.Popen", lambda c: children.append(real(c)) or children[-1])
        follow([sleeper], tmp_path / "beat", now=lambda: next(shown), pause=lambda _: True)
    assert [child.returncode for child in children] == [-signal.SIGTERM]
