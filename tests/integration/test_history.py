"""Features for training: what was known just before each moment, and not a microsecond later."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from musicrec.database import engine
from musicrec.database.engine import Dataset, open_dataset
from musicrec.errors import FeatureError
from musicrec.features import context, history, repository
from musicrec.features.compute import compute, window_ends
from musicrec.features.history import point_in_time
from musicrec.features.sessions import GAP, session_context
from musicrec.features.views import BY_NAME, STORED
from plays import Play, store

pytestmark = pytest.mark.slow

END = datetime(2024, 3, 12, tzinfo=UTC)
DAY, MINUTE, US = timedelta(days=1), timedelta(minutes=1), timedelta(microseconds=1)
STATS, AUDIO = BY_NAME["user_listening_stats"], BY_NAME["track_audio_features"]
PLAYS_7D = "user_listening_stats__plays_7d"


def moments(*rows: tuple[Any, ...], **columns: list[Any]) -> pl.DataFrame:
    """Rows of user, track and time, with other columns as given."""
    schema = {"user_id": pl.String, "track_id": pl.String, "occurred_at": pl.Datetime("us", "UTC")}
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(
        **{name: pl.Series(values) for name, values in columns.items()}
    )


def execute(dataset: Dataset, sql: str, **values: Any) -> None:
    with dataset.engine.begin() as connection:
        connection.execute(text(sql), values)


def plant(dataset: Dataset, user: str, stamp: datetime, plays: float) -> None:
    execute(
        dataset,
        "INSERT INTO user_listening_stats (event_timestamp, user_id, plays_7d)"
        " VALUES (:stamp, :user, :plays)",
        stamp=stamp,
        user=user,
        plays=plays,
    )


@pytest.fixture
def computed(dataset) -> Dataset:
    """Two plays of one listener, and the ends of ten days computed."""
    plays = [Play("ann", "a", END - 2 * DAY + MINUTE), Play("ann", "a", END)]
    store(dataset, plays, {"a": {"energy": 0.75}, "b": {}})
    for view in STORED:
        compute(dataset, view, window_ends(END - DAY, END + 9 * DAY))
    return dataset


def plays_seen(dataset: Dataset, *rows: tuple[Any, ...]) -> list[float]:
    return point_in_time(dataset, moments(*rows), views=[STATS])[PLAYS_7D].to_list()


def test_a_play_is_not_among_its_own_features(computed):
    # Ends at END - 1 day and END hold one play; that at END is first seen a day later.
    assert plays_seen(
        computed,
        ("ann", "a", END - DAY + US),
        ("ann", "a", END),
        ("ann", "a", END + US),
        ("ann", "a", END + DAY),
        ("ann", "a", END + DAY + US),
    ) == [1, 1, 1, 1, 2]


@pytest.mark.parametrize(
    ("stamp", "is_seen"),
    [(END + MINUTE, False), (END + MINUTE + US, False), (END + MINUTE - US, True)],
)
def test_a_value_stamped_at_or_after_the_event_is_not_seen(computed, stamp, is_seen):
    event = ("ann", "a", END + MINUTE)
    assert plays_seen(computed, event) == [1]
    plant(computed, "ann", stamp, 999)
    assert plays_seen(computed, event) == [999 if is_seen else 1]


@pytest.mark.parametrize(("after", "is_seen"), [(0, False), (1, True)])
def test_a_row_of_an_end_is_seen_from_a_microsecond_after_it(computed, after, is_seen):
    plant(computed, "eve", END, 5)
    (seen,) = plays_seen(computed, ("eve", "a", END + after * US))
    assert seen == 5 if is_seen else math.isnan(seen)


@pytest.mark.parametrize(("after", "is_seen"), [(-1, True), (0, True), (1, False)])
def test_a_row_is_seen_until_its_time_to_live_is_over(computed, after, is_seen):
    plant(computed, "eve", END, 5)
    # Beside a row that is young enough, so that the old one is read at all.
    _, seen = plays_seen(
        computed, ("eve", "a", END + US), ("eve", "a", END + STATS.ttl + after * US)
    )
    assert seen == 5 if is_seen else math.isnan(seen)


def test_a_row_too_old_does_not_hide_behind_none(computed):
    plant(computed, "eve", END - 7 * DAY, 5)
    assert math.isnan(plays_seen(computed, ("eve", "a", END + US))[0])


def test_attributes_have_no_time_to_live(computed):
    event = moments(("nobody", "a", END + US))
    assert point_in_time(computed, event)["track_audio_features__energy"].to_list() == [0.75]


def test_rows_come_back_in_their_order_with_all_columns(computed, monkeypatch):
    events = [("ann", "a", END + n * DAY + US) for n in (5, 0, 2, -1, 1, 2)]
    events[2] = ("bob", "b", events[2][2])
    whole = point_in_time(computed, moments(*events))
    assert whole.columns == [*(c for view in STORED for c in view.columns), *context.COLUMNS]
    assert set(whole.dtypes) == {pl.Float32}
    one_by_one = [point_in_time(computed, moments(event)).row(0) for event in events]
    np.testing.assert_array_equal(whole.to_numpy(), np.array(one_by_one, np.float32))
    monkeypatch.setattr(history, "ROWS_AT_ONCE", 2)
    np.testing.assert_array_equal(point_in_time(computed, moments(*events)), whole)


def test_no_rows_have_all_columns(computed):
    assert point_in_time(computed, moments()).shape == (
        0,
        len(point_in_time(computed, moments(("ann", "a", END))).columns),
    )


def test_arrow_rows_are_as_good(computed):
    events = moments(("ann", "a", END + US))
    assert point_in_time(computed, events.to_arrow()).equals(point_in_time(computed, events))


def test_the_context_of_a_row_is_computed_as_in_serving(computed):
    moment = context.Context(hour=22, weekday=6, device="iPhone", session=["a", "b"])
    row = moments(
        ("ann", "a", END + US),
        hour=[22],
        weekday=[6],
        device=["iPhone"],
        session_plays=[2],
        in_session=[1],
    )
    found = point_in_time(computed, row)
    energies = [found[name].to_numpy() for name in context.STORED_INPUTS]
    expected = context.of_request(moment, ["a"], *energies)
    np.testing.assert_array_equal(found.select(context.COLUMNS).to_numpy(), expected)
    assert not np.isnan(expected).any()


def test_context_that_is_not_given_is_nan(computed):
    row = moments(("ann", "a", END + US), hour=[None])
    found = point_in_time(computed, row).select(context.COLUMNS).row(0, named=True)
    known = {name for name, value in found.items() if not math.isnan(value)}
    assert known == {"context_aware_features__energy_gap"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (moments(("ann", "a", END)).drop("user_id"), "rows have no column 'user_id'"),
        (moments(("ann", None, END)), "1 rows have no track_id"),
        (
            moments(("ann", "a", END)).with_columns(
                pl.col("occurred_at").dt.replace_time_zone(None)
            ),
            r"occurred_at is Datetime\(.*time_zone=None\); make it",
        ),
        (
            moments(("ann", "a", END)).with_columns(pl.col("occurred_at").dt.cast_time_unit("ms")),
            r"occurred_at is Datetime\(time_unit='ms'",
        ),
    ],
)
def test_rows_that_cannot_be_joined_are_refused(computed, rows, message):
    with pytest.raises(FeatureError, match=message):
        point_in_time(computed, rows)


def test_an_end_that_was_not_computed_is_said(computed):
    rows = moments(("ann", "a", END), ("ann", "a", END + 10 * DAY), ("ann", "a", END + 12 * DAY))
    message = r"for 1 of the 3 window ends .* backfill=2024-03-11T00:00 as_of=2024-03-23T00:00"
    with pytest.raises(FeatureError, match=message):
        point_in_time(computed, rows)


def test_ends_left_out_before_are_said_as_long_as_they_would_show(computed):
    compute(computed, STATS, [END + 12 * DAY, END + 13 * DAY])  # 10 and 11 are not there
    way_out = r"between 2024-03-21T.* and 2024-03-24T.* backfill=2024-03-25T00:00"
    with pytest.raises(FeatureError, match=way_out):
        plays_seen(computed, ("ann", "a", END + 13 * DAY + MINUTE))
    compute(computed, STATS, window_ends(END + 12 * DAY, END + 16 * DAY))
    assert math.isnan(*plays_seen(computed, ("ann", "a", END + 16 * DAY + MINUTE)))


def test_a_dataset_without_features_is_said(dataset):
    with pytest.raises(FeatureError, match="has no computed features; compute them with"):
        point_in_time(dataset, moments(("ann", "a", END)))


def test_rows_by_another_definition_are_not_joined(computed):
    execute(
        computed, "UPDATE feature_computations SET definition = 'x' WHERE view = 'track_popularity'"
    )
    with pytest.raises(FeatureError, match=r"track_popularity .* by another definition"):
        point_in_time(computed, moments(("ann", "a", END)))


def test_ids_are_text_whatever_is_in_them(computed):
    for user in ("'); DROP TABLE users; --", "Ümit", "\\N", "a\tb"):
        plant(computed, user, END, 5)
        assert plays_seen(computed, (user, "a", END + US)) == [5]


def told_in_python(plays: list[Play], since: datetime) -> list[tuple[Any, ...]]:
    """``session_context`` by the rule: by listener, in order."""
    told = []
    for user in dict.fromkeys(sorted(p.user for p in plays)):
        session: list[str] = []
        last = None
        for p in sorted((p for p in plays if p.user == user), key=lambda p: (p.at, p.tie)):
            if last is None or p.at - last >= GAP:
                session = []
            if p.at >= since:
                at = (p.at.hour, p.at.weekday(), p.device)
                told.append((user, p.track, p.at, *at, len(session), int(p.track in session)))
            session.append(p.track)
            last = p.at
    return told


gaps = st.sampled_from([timedelta(0), US, MINUTE, GAP - US, GAP, GAP + US])
steps = st.lists(st.tuples(st.sampled_from("abc"), gaps, st.none() | st.just("phone")), max_size=12)


def history_of(user: str, moves: list[tuple[str, timedelta, str | None]]) -> list[Play]:
    """Plays that follow each other by gaps: a tie counts up among equal times, and repeats go."""
    at, plays = END - timedelta(hours=2), []
    for track, gap, device in moves:
        at += gap
        ties = [p for p in plays if p.at == at]
        if track not in {p.track for p in ties}:
            plays.append(Play(user, track, at, device=device, tie=len(ties)))
    return plays


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ann=steps, bob=steps, since=st.integers(0, 24), step=st.sampled_from([0, 1]))
def test_sessions_are_what_plain_python_counts(dataset, ann, bob, since, step):
    plays = history_of("ann", ann) + history_of("bob", bob)
    store(dataset, plays, {track: {} for track in "abc"})
    times = [p.at for p in plays] or [END]
    begin = times[since % len(times)] + step * US
    found = session_context(dataset, begin, END + DAY)
    assert found.rows() == told_in_python(plays, begin)


def test_sessions_end_before_until(dataset):
    store(dataset, [Play("ann", "a", END - US), Play("ann", "a", END)], {"a": {}})
    assert session_context(dataset, END - DAY, END)["occurred_at"].to_list() == [END - US]


def test_sessions_are_rows_for_the_join(computed):
    rows = session_context(computed, END, END + DAY)
    found = point_in_time(computed, rows)
    assert found["context_aware_features__session_plays"].to_list() == [0]
    assert found["context_aware_features__hour_cos"].to_list() == [1]


def test_a_session_in_another_time_zone_reads_the_same(computed, monkeypatch):
    def read(dataset: Dataset) -> tuple[pl.DataFrame, pl.DataFrame]:
        rows = session_context(dataset, END - 5 * DAY, END + DAY)
        return rows, point_in_time(dataset, rows.filter(pl.col("occurred_at") > END - DAY))

    expected = read(computed)
    option = "-c search_path={} -c timezone=America/New_York"
    monkeypatch.setattr(engine, "search_path_option", option.format)
    with open_dataset(computed.name) as opened:
        rows, found = read(opened)
    assert rows.equals(expected[0])
    assert found.equals(expected[1], null_equal=True)
    assert len(found) == 1


def test_the_join_is_that_of_feast_where_no_stamp_is_an_events_time(dataset, redis):
    chance = random.Random(4)
    tracks = {f"track {n}": {"energy": n / 40} if n % 3 else {} for n in range(40)}
    plays = {
        (user, track, at): Play(
            user, track, at, chance.choice([None, 60_000]), chance.choice([None, True, False])
        )
        for user, track, at in (
            (
                f"user {chance.randrange(25)}",
                f"track {chance.randrange(40)}",
                END - 50 * DAY + chance.random() * 50 * DAY,
            )
            for _ in range(1500)
        )
    }
    store(dataset, list(plays.values()), tracks)
    for view in STORED:
        compute(dataset, view, window_ends(END - 22 * DAY, END))
    later = chance.sample([key for key in plays if key[2] > END - 20 * DAY], 300)
    # Some at the wrong time, some of listeners and tracks that nothing is known of.
    later += [(u, t, END - DAY * chance.random() * 20) for u, t, _ in chance.sample(later, 100)]
    later += [("nobody", t, at) for _, t, at in later[:5]] + [
        (u, "no track", at) for u, _, at in later[:5]
    ]
    rows = moments(*later)

    ours = point_in_time(dataset, rows)
    entity_df = rows.rename({"occurred_at": "event_timestamp"}).with_row_index("row").to_pandas()
    references = [f"{view.name}:{feature.name}" for view in STORED for feature in view.features]
    feast = repository.open_store(dataset, redis)
    repository.apply(feast)
    job = feast.get_historical_features(entity_df, references, full_feature_names=True)
    feasts = job.to_df().sort_values("row")

    names = [column for view in STORED for column in view.columns]
    assert len(feasts) == len(rows)
    found, expected = ours.select(names).to_numpy(), feasts[names].to_numpy(np.float32)
    np.testing.assert_array_equal(found, expected)
    # Every feature is known somewhere, and most rows have most of them.
    assert (~np.isnan(found)).any(axis=0).sum() >= 15
