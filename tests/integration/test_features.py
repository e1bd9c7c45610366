"""Features computed in a real Postgres: right to the microsecond, whole, and the same for all."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from musicrec.database import engine
from musicrec.database.engine import Dataset, open_dataset
from musicrec.errors import ConfigError, DatabaseError, DataError, FeatureError
from musicrec.features.compute import compute
from musicrec.features.views import ALWAYS, BY_NAME, STORED, Feature, View
from plays import WINDOWED, Play, expected_rows, store

pytestmark = pytest.mark.slow

END = datetime(2024, 3, 11, tzinfo=UTC)  # in New York the day before it has 23 hours
DAY, HOUR, US = timedelta(days=1), timedelta(hours=1), timedelta(microseconds=1)
STATS, POPULARITY = BY_NAME["user_listening_stats"], BY_NAME["track_popularity"]

TRACKS: dict[str, dict[str, Any]] = {
    "full": {
        "artist": "A",
        "duration_ms": 200_000,
        "danceability": 0.5,
        "energy": 0.9,
        "valence": 0.1,
        "tempo": 120.0,
        "loudness": -7.5,
        "acousticness": 0.25,
        "instrumentalness": 0.0,
        "speechiness": 1.0,
    },
    "half": {"artist": "A", "energy": 0.2, "tempo": 90.0},
    "other": {"artist": "B", "energy": 0.4, "duration_ms": 0},
    "bare": {},
}

#: Where windows begin and end, those of closing rows too, at both cadences below.
EDGES = [
    END + days * DAY + hours * HOUR for days in (0, -1, -7, -8, -30, -31) for hours in (0, -6, 6)
]
times = st.one_of(
    st.builds(lambda edge, offset: edge + offset * US, st.sampled_from(EDGES), st.integers(-1, 1)),
    st.datetimes(datetime(2024, 2, 8), datetime(2024, 3, 12), timezones=st.just(UTC)),
)
plays = st.builds(
    Play,
    user=st.sampled_from(["ann", "bob", "Ümit'; --"]),
    track=st.sampled_from(sorted(TRACKS)),
    at=times,
    ms=st.none() | st.integers(0, 10_000_000),
    skipped=st.none() | st.booleans(),
)
histories = st.lists(plays, max_size=25, unique_by=lambda p: (p.user, p.track, p.at))


def rows_of(dataset: Dataset, view: View, end: datetime) -> dict[tuple[str, ...], list[Any]]:
    """What the table holds for ``end``: ids to features."""
    query = f"SELECT * FROM {view.name} WHERE event_timestamp = :end"
    with dataset.engine.connect() as connection:
        stored = connection.execute(text(query), {"end": end}).all()
    keys = len(view.join_keys)
    return {tuple(row[1 : 1 + keys]): list(row[1 + keys :]) for row in stored}


def query(dataset: Dataset, sql: str) -> list[tuple[Any, ...]]:
    with dataset.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(sql))]


def execute(dataset: Dataset, sql: str) -> None:
    with dataset.engine.begin() as connection:
        connection.execute(text(sql))


def check_against_plain_python(dataset: Dataset, history: list[Play], cadence: timedelta) -> None:
    """Every view at two ends that follow each other."""
    store(dataset, history, TRACKS)
    for view in STORED:
        for done in compute(dataset, view, [END - cadence, END], cadence=cadence):
            expected = expected_rows(view.name, history, TRACKS, done.window_end, cadence)
            found = rows_of(dataset, view, done.window_end)
            assert done.is_new
            assert done.num_rows == len(found)
            # float32 in the table; None equals itself alone
            assert found == {
                ids: [None if v is None else pytest.approx(v, rel=1e-6) for v in values]
                for ids, values in expected.items()
            }, (view.name, done.window_end)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=histories, cadence=st.sampled_from([DAY, 6 * HOUR]))
def test_every_view_is_what_plain_python_computes(dataset, history, cadence):
    check_against_plain_python(dataset, history, cadence)


@pytest.fixture
def in_new_york(dataset, monkeypatch):
    """The dataset through connections whose session speaks New York's time."""
    monkeypatch.setattr(
        engine,
        "search_path_option",
        lambda schema: f"-c search_path={schema} -c timezone=America/New_York",
    )
    with open_dataset(dataset.name) as opened:
        assert query(opened, "SHOW timezone") == [("America/New_York",)]
        yield opened


def around(edges: list[datetime]) -> list[Play]:
    """A play at each edge and one microsecond to each side, of one user and track."""
    return [Play("ann", "full", edge + n * US, 60_000) for edge in edges for n in (-1, 0, 1)]


def test_a_session_in_another_time_zone_computes_the_same(in_new_york):
    check_against_plain_python(in_new_york, around(EDGES), DAY)


def test_a_play_at_the_end_of_a_window_is_not_in_it(dataset):
    store(dataset, around([END]), TRACKS)
    compute(dataset, STATS, [END])
    assert rows_of(dataset, STATS, END)[("ann",)][0] == 1


def test_a_play_at_the_start_of_a_window_is_in_it(dataset):
    store(dataset, around([END - 7 * DAY]), TRACKS)
    compute(dataset, STATS, [END])
    assert rows_of(dataset, STATS, END)[("ann",)][0] == 2


@pytest.mark.parametrize(
    ("before_the_window", "expected"),
    [
        (US, {("ann",): [0, 0, 0, 0, None, None]}),
        (DAY, {("ann",): [0, 0, 0, 0, None, None]}),
        (DAY + US, {}),
    ],
)
def test_who_fell_silent_has_one_last_row_of_nothing(dataset, before_the_window, expected):
    store(dataset, [Play("ann", "full", END - 7 * DAY - before_the_window, 1, True)], TRACKS)
    compute(dataset, STATS, [END])
    assert rows_of(dataset, STATS, END) == expected


def test_what_is_known_is_not_computed_again(dataset):
    store(dataset, around([END - DAY]), TRACKS)
    first = compute(dataset, STATS, [END - DAY, END])
    told = []
    again = compute(dataset, STATS, [END - DAY, END], on_progress=told.append)
    assert [c.is_new for c in first] == [True, True]
    assert again == told == [c._replace(is_new=False) for c in first]


def test_a_late_play_is_computed_into_ends_that_were_done(dataset):
    history = around([END - DAY])
    store(dataset, history, TRACKS)
    compute(dataset, STATS, [END])
    execute(
        dataset,
        "INSERT INTO interactions (user_key, occurred_at, track_key, tie, source)"
        f" SELECT user_key, '{END - 3 * DAY}', track_key, 0, 'late' FROM interactions LIMIT 1",
    )
    (late,) = compute(dataset, STATS, [END])
    assert late.is_new
    assert rows_of(dataset, STATS, END)[("ann",)][:2] == [4, 3]


def test_an_entity_whose_plays_were_deleted_loses_its_row(dataset):
    store(dataset, [*around([END - DAY]), Play("bob", "bare", END - DAY)], TRACKS)
    compute(dataset, STATS, [END])
    execute(dataset, "DELETE FROM interactions WHERE user_key = 100")
    compute(dataset, STATS, [END])
    assert set(rows_of(dataset, STATS, END)) == {("bob",)}


def test_another_cadence_is_computed_again(dataset):
    store(dataset, around([END - 7 * DAY - 12 * HOUR]), TRACKS)
    compute(dataset, STATS, [END])
    (hourly,) = compute(dataset, STATS, [END], cadence=HOUR)
    assert hourly.is_new
    assert rows_of(dataset, STATS, END) == {}


LATEST = Feature("latest", "extract(epoch FROM max(play.occurred_at))", "s", "latest play")


@pytest.mark.parametrize(
    "features",
    [
        (*STATS.features, LATEST),
        STATS.features[:-1],
        STATS.features[::-1],
        (replace(STATS.features[0], sql="2 * count(play.track_key)"), *STATS.features[1:]),
    ],
    ids=["added", "removed", "reordered", "other SQL"],
)
def test_a_changed_view_is_computed_anew(dataset, features):
    store(dataset, around([END - DAY]), TRACKS)
    compute(dataset, STATS, [END - DAY, END])
    compute(dataset, POPULARITY, [END])
    changed = replace(STATS, features=features)
    (done,) = compute(dataset, changed, [END])
    assert done.is_new
    columns = [name for (name,) in query(dataset, COLUMNS_OF_STATS)]
    assert columns == ["event_timestamp", "user_id", *(f.name for f in features)]
    # The other end's rows were by the old definition.
    assert query(dataset, "SELECT DISTINCT event_timestamp FROM user_listening_stats") == [(END,)]
    assert query(dataset, "SELECT view, window_end FROM feature_computations ORDER BY view") == [
        ("track_popularity", END),
        ("user_listening_stats", END),
    ]


COLUMNS_OF_STATS = (
    "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass('user_listening_stats')"
    " AND attnum > 0 ORDER BY attnum"
)


def test_a_view_whose_window_changed_is_computed_anew(dataset):
    store(dataset, around([END - 8 * DAY]), TRACKS)
    compute(dataset, STATS, [END])
    compute(dataset, replace(STATS, window=9 * DAY), [END])
    assert rows_of(dataset, STATS, END)[("ann",)][0] == 3


KILL = """
CREATE FUNCTION {schema}.kill() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$;
CREATE TRIGGER kill BEFORE INSERT ON feature_computations FOR EACH ROW
WHEN (NEW.window_end = '{end}') EXECUTE FUNCTION {schema}.kill()
"""


def test_a_computation_that_is_cut_off_leaves_whole_ends(dataset):
    store(dataset, around([END - DAY, END - 2 * DAY]), TRACKS)
    compute(dataset, STATS, [END - 3 * DAY])
    # After the last row of an end is written, before it is committed.
    execute(dataset, KILL.format(schema=dataset.name, end=END))
    with pytest.raises(DatabaseError, match="no connection to Postgres"):
        compute(dataset, STATS, [END - DAY, END])
    recorded = "SELECT window_end, num_rows FROM feature_computations ORDER BY window_end"
    assert query(dataset, recorded) == [(END - 3 * DAY, 0), (END - DAY, 1)]
    assert rows_of(dataset, STATS, END) == {}
    execute(dataset, "DROP TRIGGER kill ON feature_computations")
    done = compute(dataset, STATS, [END - DAY, END])
    assert [c.is_new for c in done] == [False, True]


def test_processes_at_once_compute_each_end_once(dataset):
    store(dataset, around([END - DAY]), TRACKS)
    ends = [END - n * DAY for n in range(6)]
    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(compute, dataset, STATS, ends) for _ in range(4)]
        done = [c for run in runs for c in run.result()]
    assert sum(c.is_new for c in done) == len(ends)
    assert rows_of(dataset, STATS, END)[("ann",)][0] == 3


def test_attributes_have_one_row_whatever_the_ends(dataset):
    store(dataset, [], TRACKS)
    done = compute(dataset, BY_NAME["track_audio_features"], [END - DAY, END])
    assert [(c.window_end, c.num_rows) for c in done] == [(ALWAYS, len(TRACKS))]


def test_an_untimed_dataset_has_no_features(dataset):
    store(dataset, around([END]), TRACKS)
    execute(dataset, "UPDATE dataset_info SET timed = false")
    with pytest.raises(DataError, match=rf"'{dataset.name}' is untimed .* features need times"):
        compute(dataset, STATS, [END])


def test_an_empty_dataset_is_said(dataset):
    with pytest.raises(DataError, match=rf"'{dataset.name}' holds no listens; import some"):
        compute(dataset, STATS, [END])


def test_an_end_in_the_future_is_refused(dataset):
    tomorrow = (datetime.now(UTC) + DAY).replace(hour=0, minute=0, second=0, microsecond=0)
    with pytest.raises(FeatureError, match="lies in the future"):
        compute(dataset, STATS, [tomorrow])


@pytest.mark.parametrize("end", [END + HOUR, END.replace(tzinfo=None)])
def test_an_end_that_is_none_is_refused(dataset, end):
    with pytest.raises(ConfigError, match=r"cadence of 1 day|has no time zone"):
        compute(dataset, STATS, [end])


def test_a_refusal_of_the_server_is_one_line(dataset):
    store(dataset, around([END - DAY]), TRACKS)
    broken = replace(STATS, features=(Feature("x", "no_such_function(1)", "", ""),))
    with pytest.raises(DatabaseError, match=r"^cannot compute user_listening_stats at .*") as told:
        compute(dataset, broken, [END])
    assert "\n" not in str(told.value)


def test_the_reference_knows_every_view():
    assert {*WINDOWED, "track_audio_features"} == set(BY_NAME)
