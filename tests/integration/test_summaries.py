"""Summaries out of Postgres: whose plays, up to when, on whose clock, and who is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from musicrec.errors import ConfigError, DataError
from musicrec.graph.prompt import prompt_of
from musicrec.graph.summary import summaries, summarize
from plays import Play, store

pytestmark = pytest.mark.slow

AT = datetime(2024, 3, 8, 23, 30, tzinfo=UTC)  # a Friday night
TRACKS = {
    "glory": {"title": "Glory Box", "artist": "Portishead", "tags": ["Trip-Hop", "90s", ""]},
    "roads": {"title": "Roads\x07", "artist": "Portishead", "tags": None},
    "spot": {"title": None, "artist": None, "tags": ["techno"]},
}
PLAYS = [
    Play("ann@example.org", "glory", AT),
    Play("ann@example.org", "roads", AT + timedelta(minutes=4), ms=200_000, device="car"),
    Play("ann@example.org", "glory", AT + timedelta(days=9), ms=5_000),
    Play("bob", "spot", AT, skipped=True, ms=200_000),
]


@pytest.fixture
def listened(dataset):
    store(dataset, PLAYS, TRACKS)
    return dataset


def keys(dataset):
    with dataset.engine.connect() as connection:
        return dict(connection.execute(text("SELECT user_id, user_key FROM users")).all())


def test_many_users_are_told_as_each_alone(listened):
    found = summaries(listened, [*keys(listened).values(), 10**9])
    alone = {key: summarize(listened, user) for user, key in keys(listened).items()}
    assert found == alone
    assert list(found) == sorted(found)


def test_a_summary_says_what_was_played_and_not_by_whom(listened):
    summary = summarize(listened, "ann@example.org")
    assert (summary.plays, summary.tracks, summary.sittings) == (3, 2, 2)
    assert [(row.track_id, row.plays, row.skipped, row.moving) for row in summary.rows] == [
        ("roads", 1, 0, 1),
        ("glory", 2, 1, 0),  # five seconds of a play are a skip
    ]
    assert summary.rows[0].title == "Roads"
    assert summary.rows[1].tags == ("trip hop",)
    assert summary.rows[1].era == "1990s"
    everything = summary.canonical + prompt_of(summary)
    assert "ann" not in everything
    assert str(keys(listened)["ann@example.org"]) not in prompt_of(summary)


def test_plays_from_as_of_on_are_not_seen(listened):
    cut = summarize(listened, "ann@example.org", as_of=AT + timedelta(days=9))
    assert cut.plays == 2


def test_a_later_as_of_changes_nothing(listened):
    user = "ann@example.org"
    late = datetime(2026, 1, 1, tzinfo=UTC)
    assert summarize(listened, user, as_of=late).input_hash == summarize(listened, user).input_hash


def test_the_clock_is_that_of_the_zone(listened):
    there = summarize(listened, "bob", zone="Asia/Tokyo").habits  # half past eight on Saturday
    here = summarize(listened, "bob").habits
    assert (there.dayparts, there.weekend) == ((1, 0, 0, 0), 1)
    assert (here.dayparts, here.weekend) == ((0, 0, 0, 1), 0)


def test_equal_times_keep_the_order_of_the_file(dataset):
    plays = [
        Play("ann", track, AT, tie=tie) for tie, track in enumerate(("spot", "glory", "roads"))
    ]
    store(dataset, plays, TRACKS)
    one = summarize(dataset, "ann")
    assert one.plays == 3
    assert one.canonical == summarize(dataset, "ann").canonical


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"user_id": "eve"}, DataError, "no user 'eve'"),
        ({"as_of": AT}, DataError, "no listens before"),
        ({"as_of": datetime(2024, 1, 1)}, ConfigError, "has no time zone"),
        ({"zone": "Mars/North"}, ConfigError, "Mars/North"),
        ({"zone": "../etc"}, ConfigError, "no time zone"),
    ],
)
def test_what_cannot_be_told_is_refused_in_one_line(listened, settings, error, says):
    with pytest.raises(error, match=says) as refused:
        summarize(listened, **({"user_id": "bob"} | settings))
    assert "\n" not in str(refused.value)


def test_an_untimed_dataset_is_refused(listened):
    with listened.engine.begin() as connection:
        connection.execute(text("UPDATE dataset_info SET timed = false"))
    with pytest.raises(DataError, match="untimed"):
        summarize(listened, "bob")
