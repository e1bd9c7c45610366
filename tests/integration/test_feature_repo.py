"""``feature_repo/`` under Feast's own command and SDK, and what we read of its registry."""

from __future__ import annotations

import math
import socket
import subprocess
import time
import urllib.request
import uuid
import warnings
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from psycopg import sql

from commands import command, done, finished
from musicrec.cli.feature_store import exports
from musicrec.database import engine
from musicrec.database.engine import Dataset
from musicrec.database.redis_address import RedisAddress
from musicrec.errors import FeatureError
from musicrec.features import context, repository, tables
from musicrec.features.context import Context, of_request
from musicrec.features.views import ALWAYS, STORED, View

if TYPE_CHECKING:
    from feast import FeatureStore

pytestmark = pytest.mark.slow

END = datetime(2026, 3, 1, tzinfo=UTC)
USERS = ("anna", "börje, o'neil")
TRACKS = ("t1", "t2", "t3")
CONTEXT = Context(hour=22, weekday=5, device="iPhone", session=["t2", "t9"])


@pytest.fixture(scope="module")
def dataset(postgres: str | None) -> Iterator[Dataset]:
    """One whose tables of features were filled by hand."""
    name = f"test_{uuid.uuid4().hex[:16]}"
    with engine.open_dataset(name, create=True) as opened:
        with tables.psycopg_connection(opened, "fill") as connection:
            for view in STORED:
                tables.make(connection, name, view)
                fill(connection, view)
            connection.commit()
        yield opened
    engine.drop_dataset(name)


def fill(connection: Any, view: View) -> None:
    """A row for every entity but those of the last track; the first feature of each is null."""
    stamp = END if view.window else ALWAYS
    users = USERS if "user" in view.entities else ("",)
    tracks = TRACKS[:-1] if "track" in view.entities else ("",)
    for user in users:
        for track in tracks:
            ids = [track if entity == "track" else user for entity in view.entities]
            values = [None, *(known(view, column, *ids) for column in range(1, len(view.features)))]
            row = [stamp, *ids, *values]
            marks = sql.SQL(", ").join([sql.Placeholder()] * len(row))
            statement = sql.SQL("INSERT INTO {} VALUES ({})").format(
                sql.Identifier(view.name), marks
            )
            connection.execute(statement, row)


def known(view: View, column: int, *ids: str) -> float:
    """A value that tells all features and entities apart."""
    seed = sum(map(ord, view.name + "".join(ids)))
    return float(np.float32(column + seed / 7000))


@pytest.fixture(scope="module")
def applied(dataset: Dataset, redis: RedisAddress, tmp_path_factory: Any) -> str:
    """What Feast's own command said when it applied the repository, in its environment."""
    return done(
        command(
            "feature_store", f"dataset={dataset.name}", "apply", cwd=tmp_path_factory.getbasetemp()
        )
    )


@pytest.fixture(scope="module")
def store(dataset: Dataset, redis: RedisAddress, applied: str) -> FeatureStore:
    return repository.open_store(dataset, redis)


@pytest.fixture(scope="module")
def materialized(store: FeatureStore) -> FeatureStore:
    """After Feast's own materialization."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        store.materialize(ALWAYS - timedelta(days=1), END + timedelta(minutes=1))
    return store


def online(store: FeatureStore, user: str) -> dict[str, list[Any]]:
    rows = [
        {
            "user_id": user,
            "track_id": track,
            "hour": CONTEXT.hour,
            "weekday": CONTEXT.weekday,
            "device": CONTEXT.device,
            "session_plays": 2,
            "in_session": int(track == "t2"),
        }
        for track in TRACKS
    ]
    service = store.get_feature_service(repository.SERVICE)
    return store.get_online_features(service, rows, full_feature_names=True).to_dict()


def test_feasts_own_command_registers_all_views_of_the_dataset(applied, dataset):
    assert f"Applying changes for project {dataset.name}" in applied
    for view in STORED:
        assert view.name in applied


def test_what_feasts_own_command_registered_is_what_apply_would(store):
    assert repository.apply(store) is False
    repository.check_current(store)


def test_the_service_asks_for_every_feature_there_is(store):
    columns = repository.service_columns(store)
    assert columns == {
        **{view.name: tuple(feature.name for feature in view.features) for view in STORED},
        context.NAME: tuple(context.FEATURES),
    }


def test_the_registry_says_what_a_feature_means(store):
    view = store.get_feature_view("user_listening_stats")
    (field,) = (field for field in view.features if field.name == "minutes_7d")
    assert field.description == "time heard"
    assert field.tags["unit"] == "minutes"
    assert view.ttl == timedelta(days=7)


def test_feasts_sdk_reads_the_rows_that_feast_materialized(materialized):
    for user in USERS:
        features = online(materialized, user)
        for view in STORED:
            for place, track in enumerate(TRACKS):
                ids = [track if entity == "track" else user for entity in view.entities]
                is_there = "track" not in view.entities or track != TRACKS[-1]
                for column, name in enumerate(view.columns):
                    expected = known(view, column, *ids) if column and is_there else None
                    assert features[name][place] == expected, (name, user, track)


def test_feasts_sdk_computes_the_on_demand_view_as_we_do(materialized):
    features = online(materialized, USERS[1])
    energy, energy_30d = (
        np.array([np.nan if value is None else value for value in features[name]], np.float32)
        for name in context.STORED_INPUTS
    )
    ours = of_request(CONTEXT, TRACKS, energy, energy_30d)
    theirs = np.array([features[name] for name in context.COLUMNS], np.float32).T
    np.testing.assert_array_equal(ours, theirs)
    assert not np.isnan(ours[0]).any()
    assert np.isnan(ours[2]).tolist() == [name == "energy_gap" for name in context.FEATURES]


def test_feasts_sdk_joins_history_with_the_on_demand_view_as_we_do(materialized):
    import pandas as pd

    moments = pd.DataFrame(
        {
            "user_id": [USERS[0], USERS[1], USERS[0]],
            "track_id": ["t1", "t2", "t3"],
            "event_timestamp": [END + timedelta(hours=1), END + timedelta(days=2), END],
            "hour": [3, 14, None],
            "weekday": [6, 1, None],
            "device": ["Android 14", "web player", None],
            "session_plays": [4, 0, None],
            "in_session": [1, 0, None],
        }
    )
    service = materialized.get_feature_service(repository.SERVICE)
    job = materialized.get_historical_features(moments, service, full_feature_names=True)
    joined = job.to_df().sort_values("event_timestamp").reset_index(drop=True)
    ours = context.of_rows(
        {name: joined[name] for name in (*context.REQUEST, *context.STORED_INPUTS)}
    )
    theirs = joined[[*context.COLUMNS]].to_numpy(np.float32)
    np.testing.assert_array_equal(ours, theirs)
    energy, at = (known(STORED[place], 1, id_) for place, id_ in ((2, "t1"), (1, USERS[0])))
    assert math.isclose(theirs[1, -1], energy - at, abs_tol=1e-5)


def test_a_materialization_of_ours_counts_as_feasts_own(materialized):
    later = END + timedelta(days=1)
    repository.record_materialized(materialized, "track_popularity", END, later)
    assert repository.watermark(materialized, "track_popularity") == later
    assert online(materialized, USERS[0])["track_popularity__plays_1d"][0] is not None


def test_the_ui_answers(dataset: Dataset, applied: str, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    place = f"http://127.0.0.1:{port}/api/v1/feature_views?project={dataset.name}"
    arguments = (f"dataset={dataset.name}", "ui", "--host", "127.0.0.1", "--port", str(port))
    process = command("feature_store", *arguments, cwd=tmp_path)
    try:
        assert "user_track_interactions" in answer(place, process)
    finally:
        process.terminate()
        finished(process)


def answer(place: str, process: subprocess.Popen[str]) -> str:
    while True:
        try:
            with urllib.request.urlopen(place, timeout=30) as response:
                return str(response.read().decode())
        except OSError:
            assert process.poll() is None, finished(process)
            time.sleep(0.1)


def test_the_environment_is_printed_for_a_shell(dataset: Dataset, tmp_path: Path) -> None:
    script = done(command("feature_store", f"dataset={dataset.name}", cwd=tmp_path))
    echo = f'{script}\necho "$FEAST_PROJECT $FEAST_POSTGRES_HOST"'
    said = subprocess.run(["sh", "-c", echo], capture_output=True, text=True, check=True)
    assert said.stdout.startswith(f"{dataset.name} ")
    assert said.stderr == ""


def test_passwords_of_others_servers_are_printed_on_request_only(dataset, postgres):
    if postgres:
        pytest.skip("needs a server that takes any password")
    address = replace(
        dataset.address,
        is_embedded=False,
        parameters={**dataset.address.parameters, "password": "geheim"},
    )
    servers = replace(dataset, address=address), RedisAddress("redis.example", 6379, "secret")
    hidden = "\n".join(exports(*servers, show_secrets=False))
    assert "geheim" not in hidden
    assert 'secret"' not in hidden
    assert "# FEAST_POSTGRES_PASSWORD holds a password; see it with show_secrets=true" in hidden
    shown = "\n".join(exports(*servers, show_secrets=True))
    assert "export FEAST_POSTGRES_PASSWORD=geheim" in shown
    assert 'redis.example:6379,password="secret"' in shown


@pytest.mark.parametrize("password", ["a,b=\"c' #d: $HOME", "12345", "true"])
def test_a_password_reaches_redis_through_feasts_configuration(dataset, applied, password):
    from feast.infra.online_stores.redis import RedisOnlineStore

    store = repository.open_store(dataset, RedisAddress("redis.example", 6380, password, ssl=True))
    read = RedisOnlineStore._parse_connection_string(store.config.online_store.connection_string)
    assert read == (
        [{"host": "redis.example", "port": "6380"}],
        {"ssl": True, "password": password},
    )


def test_an_unknown_service_is_named_with_those_there_are(store):
    with pytest.raises(FeatureError, match=r"no feature service 'recomendation' .*did you mean"):
        repository.service_columns(store, "recomendation")


@pytest.fixture
def other_store(
    store: FeatureStore, monkeypatch: Any, tmp_path: Path, dataset: Any, redis: Any
) -> FeatureStore:
    """One with a registry of its own, a copy."""
    copy = tmp_path / "registry.db"
    copy.write_bytes(Path(store.config.registry.path).read_bytes())
    monkeypatch.setenv("FEAST_REGISTRY", str(copy))
    return repository.open_store(dataset, redis)


def test_a_missing_registry_is_said_and_not_made(other_store):
    place = Path(other_store.config.registry.path)
    place.unlink()
    with pytest.raises(
        FeatureError, match=r"registry\.db is missing.*scripts/feature_store\.py dataset="
    ):
        repository.service_columns(other_store)
    assert not place.exists()


def test_a_torn_registry_is_said(other_store):
    Path(other_store.config.registry.path).write_bytes(b"torn")
    with pytest.raises(FeatureError, match=r"registry\.db is torn"):
        repository.check_current(other_store)
    with pytest.raises(FeatureError, match=r"registry\.db is torn"):
        repository.apply(other_store)


def test_a_registry_older_than_the_code_is_refused_until_applied(other_store, monkeypatch):
    monkeypatch.setitem(context.FEATURES, "energy_gap", ("-1..1", "another meaning", "never"))
    with pytest.raises(FeatureError, match=r"'context_aware_features' is of another definition"):
        repository.service_columns(other_store)
    assert repository.apply(other_store) is True
    repository.check_current(other_store)


def test_a_view_that_is_not_in_the_registry_is_named(other_store):
    registry, project = other_store.registry, other_store.project
    registry.delete_feature_view("track_popularity", project)
    with pytest.raises(FeatureError, match=r"'track_popularity' is missing in the registry"):
        repository.service_columns(other_store)


def test_a_view_unknown_to_the_code_is_named(other_store):
    from feast import FeatureService

    registry, project = other_store.registry, other_store.project
    view = registry.get_feature_view("track_popularity", project)
    view.name = view.projection.name = "track_popularty"
    registry.apply_feature_view(view, project)
    registry.apply_feature_service(FeatureService(name="wrong", features=[view]), project)
    with pytest.raises(FeatureError, match=r"'track_popularty', which is unknown.*did you mean"):
        repository.service_columns(other_store, "wrong")
