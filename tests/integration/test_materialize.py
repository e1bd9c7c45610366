"""From Postgres into a real Redis: Feast's bytes, verified, and whole whatever happens."""

from __future__ import annotations

import os
import random
import signal
import socket
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from breakable_redis import BreakableRedis
from commands import command, done, finished
from musicrec.cli import materialize as cli
from musicrec.cli.compose import compose
from musicrec.database import engine
from musicrec.database.engine import Dataset
from musicrec.database.redis_address import RedisAddress
from musicrec.errors import ConfigError, DatabaseError, DataError, FeatureError
from musicrec.features import layout, materialize, repository, upkeep
from musicrec.features.compute import compute
from musicrec.features.connection import Connection
from musicrec.features.materialize import write
from musicrec.features.prune import prune
from musicrec.features.resp import encoded
from musicrec.features.tables import STAMP
from musicrec.features.views import ALWAYS, BY_NAME, STORED, View
from plays import Play, store

if TYPE_CHECKING:
    from feast import FeatureStore

pytestmark = pytest.mark.slow

END = datetime(2024, 3, 12, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
STATS, PAIRS = BY_NAME["user_listening_stats"], BY_NAME["user_track_interactions"]
Hashes = dict[bytes, dict[bytes, bytes]]

TRACKS: dict[str, dict[str, Any]] = {
    f"track-{number}": {"energy": number / 40, "tempo": 60.0 + number} for number in range(40)
} | {
    "Ünï çødé 🎵": {"loudness": float("inf"), "duration_ms": 1},
    "nan": {"loudness": float("nan"), "energy": 0.0},
    "x" * 700: {},
}
CHANCE = random.Random(4)
PLAYS = [
    Play(
        user=CHANCE.choice([*(f"user-{number}" for number in range(25)), "'; -- ☃", "u" * 500]),
        track=CHANCE.choice(list(TRACKS)),
        at=END - DAY * CHANCE.uniform(0, 45),
        ms=CHANCE.choice([None, 1000, 200_000]),
        skipped=CHANCE.choice([None, False, True]),
    )
    for _ in range(900)
]


@pytest.fixture(scope="module")
def history(postgres) -> Iterator[Dataset]:
    """Forty-five days of plays."""
    name = f"test_{uuid.uuid4().hex[:16]}"
    with engine.open_dataset(name, create=True) as opened:
        store(opened, PLAYS, TRACKS)
        yield opened
    engine.drop_dataset(name)


@pytest.fixture(scope="module")
def feast(history, redis) -> FeatureStore:
    return upkeep.prepared(history, redis)


@pytest.fixture
def listened(history, feast, redis) -> Dataset:
    """The same for every test, and nothing of it in Redis yet; the registry's watermarks stay."""
    forget(redis, history.name)
    return history


def hashes(redis: RedisAddress, project: str) -> Hashes:
    """Every hash of a project, by key."""
    with Connection(redis) as connection:
        (keys,) = connection.ask(encoded(b"KEYS", b"*" + project.encode()), 1)
        found = {}
        for key in keys:
            (pairs,) = connection.ask(encoded(b"HGETALL", key), 1)
            found[key] = dict(zip(pairs[::2], pairs[1::2]))
    return found


def forget(redis: RedisAddress, project: str) -> None:
    with Connection(redis) as connection:
        (keys,) = connection.ask(encoded(b"KEYS", b"*" + project.encode()), 1)
        if keys:
            connection.ask(encoded(b"DEL", *keys), 1)


def held(redis: RedisAddress, dataset: Dataset, view: View, *ids: str) -> dict[str, Any]:
    """One row, as bytes, features by name and the stamp in nanoseconds; empty if none is there."""
    key = layout.key(layout.key_prefix(view.join_keys), ids, dataset.name.encode())
    row = hashes(redis, dataset.name).get(key, {})
    named = {f.name: row[layout.field(view.name, f.name)] for f in view.features if row}
    stamp = row.get(layout.timestamp_field(view.name))
    return named | {STAMP: layout.nanoseconds(stamp)} if stamp else {}


def computed(dataset: Dataset, view: View, *ends: datetime) -> None:
    compute(dataset, view, ends)


def watermarks(feast: FeatureStore) -> dict[str, datetime | None]:
    return {view.name: repository.watermark(feast, view.name) for view in STORED}


# Against Feast


def test_redis_holds_every_byte_that_feast_would_have_written(listened, feast, redis):
    outcomes = upkeep.bring(listened, STORED, END, feast, redis, since=END - 3 * DAY)
    assert upkeep.stale(outcomes) is None
    ours = hashes(redis, listened.name)
    forget(redis, listened.name)
    for view in STORED:
        feast.materialize(END - view.ttl if view.ttl else ALWAYS, END, [view.name])
    assert ours == hashes(redis, listened.name)
    assert len(ours) > 500


def test_feasts_own_client_reads_what_was_written(listened, feast, redis):
    upkeep.bring(listened, [STATS], END, feast, redis)
    row = held(redis, listened, STATS, "'; -- ☃")
    answer = feast.get_online_features(
        [f"{STATS.name}:plays_7d"], [{"user_id": "'; -- ☃"}]
    ).to_dict()
    assert layout.value(answer["plays_7d"][0]) == row["plays_7d"]


def test_running_again_changes_nothing(listened, feast, redis):
    upkeep.bring(listened, STORED, END, feast, redis)
    first = hashes(redis, listened.name)
    again = upkeep.bring(listened, STORED, END, feast, redis)
    assert hashes(redis, listened.name) == first
    assert [outcome.computed for outcome in again] == [0] * len(STORED)


def test_the_watermark_is_the_end_that_was_written(listened, feast, redis):
    upkeep.bring(listened, [PAIRS], END + DAY, feast, redis)
    assert repository.watermark(feast, PAIRS.name) == END + DAY


# Going wrong


def test_views_that_redis_did_not_take_keep_their_watermark_and_are_named(listened, feast, redis):
    upkeep.bring(listened, STORED, END, feast, redis)
    before = watermarks(feast)
    with BreakableRedis(redis) as proxy:
        proxy.die(after=60_000)
        outcomes = upkeep.bring(listened, STORED, END + 2 * DAY, feast, proxy.address)
    failed = [outcome.view for outcome in outcomes if outcome.failure]
    assert 0 < len(failed) < len(STORED)
    after = watermarks(feast)
    for view in STORED:
        assert after[view.name] == (before[view.name] if view.name in failed else END + 2 * DAY)
    said = str(upkeep.stale(outcomes))
    assert said.startswith(f"{len(failed)} of 5 views are stale: ")
    assert "\n" not in said
    for name in failed:
        assert f"{name} (since {before[name]:%Y-%m-%d %H:%M} UTC)" in said


def test_a_view_that_fails_does_not_keep_the_others_back(listened, feast, redis):
    with BreakableRedis(redis) as proxy:
        proxy.passage = once(lambda sent: None)
        outcomes = upkeep.bring(listened, STORED, END + 3 * DAY, feast, proxy.address)
    assert [outcome.failure is None for outcome in outcomes] == [False, True, True, True, True]


def once(passage):
    """``passage`` for the first bytes, and then as they are."""
    calls = []

    def first(sent: bytes) -> bytes | None:
        calls.append(sent)
        return passage(sent) if len(calls) == 1 else sent

    return first


def test_a_byte_that_redis_did_not_keep_is_noticed(dataset, redis):
    store(dataset, PLAYS, TRACKS)
    computed(dataset, STATS, END)
    with BreakableRedis(redis) as proxy:
        float_of_one = layout.value(1.0)
        proxy.passage = lambda sent: sent.replace(float_of_one, layout.value(2.0))
        with pytest.raises(
            FeatureError, match=r"does not hold .* user_listening_stats of user_id="
        ):
            write(dataset, STATS, END, proxy.address)


def test_what_redis_refuses_is_said_in_its_words(dataset, redis):
    store(dataset, PLAYS, TRACKS)
    computed(dataset, STATS, END)
    with BreakableRedis(redis) as proxy:
        proxy.passage = lambda sent: sent.replace(b"\r\nHSET\r\n", b"\r\nHSXT\r\n")
        with pytest.raises(DatabaseError, match=r"refuses: ERR unknown command `HSXT`"):
            write(dataset, STATS, END, proxy.address)


def test_what_is_no_redis_is_said(dataset):
    with socket.create_server(("127.0.0.1", 0)) as door:
        threading.Thread(
            target=lambda: door.accept()[0].sendall(b"HTTP/1.1 400"), daemon=True
        ).start()
        with pytest.raises(DatabaseError, match=r"no connection to Redis at 127\.0\.0\.1:"):
            Connection(RedisAddress("127.0.0.1", door.getsockname()[1]))


def test_ctrl_c_says_how_to_go_on(dataset, redis, monkeypatch):
    store(dataset, PLAYS[:1], TRACKS)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(upkeep, "prepared", interrupted)
    settings = [f"dataset={dataset.name}", f"as_of={END.date()}"]
    with pytest.raises(KeyboardInterrupt, match="go on with the same command"):
        cli.materialize(compose("materialize", settings))


@pytest.mark.parametrize(
    ("as_of", "said"),
    [
        (
            "2024-03-11T05:59",
            r"no play of \w+ is before 2024-03-11 00:00 UTC.*as_of=2024-03-12T00:00",
        ),
        ("1900-01-01", "no play of"),
    ],
)
def test_a_moment_before_the_first_play_is_refused(dataset, as_of, said):
    store(dataset, [Play("ann", "nan", END - DAY + HOUR)], TRACKS)
    with pytest.raises(ConfigError, match=said):
        cli.materialize(compose("materialize", [f"dataset={dataset.name}", f"as_of={as_of}"]))


def test_two_at_a_time_are_refused(dataset, monkeypatch):
    monkeypatch.setattr(materialize, "WAIT_SECONDS", 1)
    with (
        materialize.alone(dataset),
        pytest.raises(FeatureError, match="being materialized by another process"),
        materialize.alone(dataset),
    ):
        pass


def test_an_untimed_dataset_has_no_moment(dataset):
    store(dataset, PLAYS[:1], TRACKS)
    with dataset.engine.begin() as connection:
        connection.execute(text("UPDATE dataset_info SET timed = false"))
    with pytest.raises(DataError, match="untimed"):
        upkeep.plays(dataset)


# Which rows


def test_a_row_of_a_later_moment_stays(dataset, redis):
    store(dataset, PLAYS, TRACKS)
    computed(dataset, STATS, END - DAY, END)
    write(dataset, STATS, END, redis)
    latest = hashes(redis, dataset.name)
    earlier = write(dataset, STATS, END - DAY, redis)
    assert earlier.newer > 0
    assert hashes(redis, dataset.name).items() >= latest.items()


def test_late_plays_change_a_row_of_the_same_moment(dataset, redis):
    store(dataset, [Play("ann", "nan", END - DAY)], TRACKS)
    computed(dataset, STATS, END)
    write(dataset, STATS, END, redis)
    store(dataset, [Play("ann", "nan", END - DAY), Play("ann", "nan", END - HOUR)], TRACKS)
    computed(dataset, STATS, END)
    write(dataset, STATS, END, redis)
    assert held(redis, dataset, STATS, "ann")["plays_7d"] == layout.value(2)


@pytest.mark.parametrize(("age", "is_written"), [(7 * DAY, True), (7 * DAY + HOUR, False)])
def test_rows_are_written_as_long_as_they_may_be_served(dataset, redis, age, is_written):
    store(dataset, [Play("ann", "nan", END - DAY)], TRACKS)
    compute(dataset, STATS, [END], cadence=HOUR)
    write(dataset, STATS, END + age, redis)
    assert bool(held(redis, dataset, STATS, "ann")) is is_written


def test_days_that_were_left_out_are_made_up_for(listened, feast, redis):
    """Who fell silent in between gets the row that says so."""
    silent = END + 5 * DAY  # of all listeners the last play is before END
    upkeep.bring(listened, [STATS], silent, feast, redis)
    upkeep.bring(listened, [STATS], silent + 5 * DAY, feast, redis)
    last = max(play.at for play in PLAYS if play.user == "user-0")
    row = held(redis, listened, STATS, "user-0")
    assert row["plays_7d"] == layout.value(0)
    closing = last.replace(hour=0, minute=0, second=0, microsecond=0) + 8 * DAY
    assert row[STAMP] == int(closing.timestamp()) * 1_000_000_000


# Ann's last play is in the last window of day 6; the row that says so is of day 7.
ANN = [Play("ann", "nan", END - HOUR), Play("bob", "nan", END + 30 * DAY)]
SILENT = END + 7 * DAY


def plays_of_ann(redis: RedisAddress, dataset: Dataset) -> bytes:
    return held(redis, dataset, STATS, "ann")["plays_7d"]


@pytest.mark.parametrize(
    "runs",
    [
        [(SILENT + DAY, None), (SILENT - DAY, SILENT - 4 * DAY), (SILENT + DAY, None)],
        [(SILENT - DAY, None), (SILENT + 2 * DAY, SILENT + DAY)],
    ],
    ids=["an earlier time is filled in later", "a backfill begins after a pause"],
)
def test_a_gap_between_runs_hides_no_last_row(dataset, redis, runs):
    store(dataset, ANN, TRACKS)
    feast = upkeep.prepared(dataset, redis)
    for end, since in runs:
        upkeep.bring(dataset, [STATS], end, feast, redis, since=since)
    assert plays_of_ann(redis, dataset) == layout.value(0)


def test_a_view_that_changed_leaves_no_row_of_its_old_definition(dataset, redis):
    store(dataset, ANN, TRACKS)
    upkeep.bring(dataset, [STATS], SILENT - DAY, upkeep.prepared(dataset, redis), redis)
    with dataset.engine.begin() as connection:
        connection.execute(text("UPDATE feature_computations SET definition = 'another'"))
    upkeep.bring(dataset, [STATS], SILENT + 2 * DAY, upkeep.prepared(dataset, redis), redis)
    assert plays_of_ann(redis, dataset) == layout.value(0)


def test_a_stamp_that_is_none_is_written_over(dataset, redis):
    store(dataset, ANN, TRACKS)
    computed(dataset, STATS, END)
    key = layout.key(layout.key_prefix(STATS.join_keys), ("ann",), dataset.name.encode())
    with Connection(redis) as connection:
        stamp = layout.timestamp_field(STATS.name)
        connection.ask(encoded(b"HSET", key, stamp, b"\x08\xff"), 1)
    assert write(dataset, STATS, END, redis).rows == 1
    assert plays_of_ann(redis, dataset) == layout.value(1)


def test_a_stamp_of_the_far_future_is_newer(dataset, redis):
    store(dataset, ANN, TRACKS)
    computed(dataset, STATS, END)
    key = layout.key(layout.key_prefix(STATS.join_keys), ("ann",), dataset.name.encode())
    far = layout.timestamp(datetime(3000, 1, 1, tzinfo=UTC))
    with Connection(redis) as connection:
        connection.ask(encoded(b"HSET", key, layout.timestamp_field(STATS.name), far), 1)
    assert write(dataset, STATS, END, redis).newer == 1


def test_pruning_deletes_what_no_reader_may_see_and_nothing_else(dataset, redis):
    store(dataset, PLAYS, TRACKS)
    audio, popularity = BY_NAME["track_audio_features"], BY_NAME["track_popularity"]
    for view in (STATS, PAIRS, audio, popularity):
        computed(dataset, view, END)
        write(dataset, view, END, redis)
    before = hashes(redis, dataset.name)
    assert prune(dataset.name, STORED, END + 7 * DAY, redis) == 0
    assert prune(dataset.name[1:], STORED, END + 99 * DAY, redis) == 0  # ends alike, is another
    assert hashes(redis, dataset.name) == before
    assert prune(dataset.name, STORED, END + 7 * DAY + HOUR, redis) > 0
    left = {field for fields in hashes(redis, dataset.name).values() for field in fields}
    gone = {layout.timestamp_field(view.name) for view in (STATS, popularity)}
    gone |= {*layout.fields(STATS), *layout.fields(popularity)}
    assert left == {field for fields in before.values() for field in fields} - gone


# The command


@pytest.fixture(scope="module")
def killed(history, feast, redis, tmp_path_factory) -> tuple[Any, ...]:
    """The command, killed in the middle of writing, and run again to its end."""
    folder = tmp_path_factory.mktemp("killed")
    forget(redis, history.name)
    end = END + 10 * DAY
    arguments = ("--all", f"dataset={history.name}", f"as_of={end + 5 * HOUR:%Y-%m-%dT%H:%M}")
    with BreakableRedis(redis) as proxy:
        proxy.stall(after=40_000)
        process = command(
            "materialize_features",
            *arguments,
            cwd=folder,
            FEAST_REDIS_HOST=proxy.address.host,
            FEAST_REDIS_PORT=str(proxy.address.port),
            FEAST_REDIS_PASSWORD=redis.password or "",
        )
        assert proxy.stalled.wait(120), finished(process)
        os.kill(process.pid, signal.SIGKILL)
        finished(process)
    feast.refresh_registry()
    marks, rows = watermarks(feast), hashes(redis, history.name)
    out = done(command("materialize_features", *arguments, cwd=folder))
    feast.refresh_registry()
    return end, marks, rows, out, watermarks(feast), hashes(redis, history.name)


def test_a_killed_run_has_written_and_moved_no_watermark_of_what_it_had_not(killed):
    end, marks, rows, *_ = killed
    assert rows
    assert any(mark != end for mark in marks.values())


def test_run_again_it_ends_as_if_it_had_never_been_killed(killed, listened, feast, redis):
    end, *_, marks, rows = killed
    assert set(marks.values()) == {end}
    forget(redis, listened.name)
    upkeep.bring(listened, STORED, end, feast, redis)
    assert rows == hashes(redis, listened.name)


def test_the_command_says_what_became_of_each_view(killed):
    out = killed[3]
    for view in STORED:
        (line,) = [line for line in out.splitlines() if view.name in line]
        assert f"{killed[0]:%Y-%m-%d %H:%M}" in line
