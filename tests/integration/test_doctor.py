"""The doctor at real servers: what it sees inside of them, and that it leaves them as they were."""

from __future__ import annotations

import json
import socket
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import torch
from sqlalchemy import text

from commands import command, finished
from musicrec.cli.doctor import features, models, servers
from musicrec.cli.doctor.findings import Asked
from musicrec.database import revisions
from musicrec.features import layout, repository, upkeep
from musicrec.features.connection import Connection
from musicrec.features.resp import encoded
from musicrec.features.views import STORED
from musicrec.interactions.catalogue import Catalogue
from musicrec.models.sasrec import SASRec
from musicrec.registry import bundle as bundles
from plays import Play, store

pytestmark = pytest.mark.slow

END = datetime(2024, 3, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
PLAYS = [Play(f"user-{n % 3}", f"track-{n % 5}", END - HOUR * (n + 1)) for n in range(30)]


@pytest.fixture(autouse=True)
def looked_for_anew():
    servers.found_postgres.cache_clear()
    servers.found_redis.cache_clear()


@pytest.fixture
def asked(dataset):
    store(dataset, PLAYS, {f"track-{n}": {} for n in range(5)})
    return Asked(dataset=dataset.name, as_of=END)


@pytest.fixture
def materialized(dataset, redis, asked):
    feast = upkeep.prepared(dataset, redis)
    assert upkeep.stale(upkeep.bring(dataset, STORED, END, feast, redis)) is None
    return asked


def test_a_dataset_of_the_newest_migration_is_ok(asked):
    (server,) = servers.postgres(asked)
    (finding,) = servers.datasets(asked)
    assert (server.state, finding.state) == ("ok", "ok")
    assert f"migration {revisions.known()[-1]}" in finding.said


@pytest.mark.parametrize(("revision", "state"), [("0001", "warning"), ("9999", "broken")])
def test_a_dataset_of_another_migration_is_told_and_left_as_it_was(dataset, asked, revision, state):
    with dataset.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :to"), {"to": revision})
    (finding,) = servers.datasets(asked)
    assert finding.state == state
    with dataset.engine.connect() as connection:
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == revision


def test_a_look_into_postgres_cannot_write(dataset, asked):
    server = servers.found_postgres(asked)
    with (
        servers.look_inside(server, dataset.name) as connection,
        pytest.raises(Exception, match="read-only"),
    ):
        connection.execute("DELETE FROM interactions")


def test_a_redis_that_forgets_features_when_it_is_full_is_a_warning(redis, asked):
    (before,) = servers.redis(asked)
    with Connection(redis) as connection:
        connection.ask(encoded(b"CONFIG", b"SET", b"maxmemory-policy", b"allkeys-lru"), 1)
        (during,) = servers.redis(asked)
        connection.ask(encoded(b"CONFIG", b"SET", b"maxmemory-policy", b"noeviction"), 1)
    assert (before.state, during.state) == ("ok", "warning")
    assert "CONFIG SET maxmemory-policy noeviction" in during.fix


def test_features_that_were_never_materialized_are_not_set(redis, asked):
    (finding,) = features.feast(asked)
    assert finding.state == "not set"
    assert finding.fix.endswith(f"--all dataset={asked.dataset}")


def test_features_are_fresh_late_lost_and_of_another_definition(
    dataset, redis, materialized, monkeypatch
):
    assert [each.state for each in features.feast(materialized)] == ["ok", "ok"]

    with dataset.engine.begin() as connection:
        connection.execute(
            text("UPDATE interactions SET occurred_at = occurred_at + interval '5 days'")
        )
    _, late = features.feast(Asked(dataset=dataset.name, as_of=END + timedelta(days=5)))
    assert (late.state, "days behind the listens" in late.said) == ("warning", True)

    # One view is enough, and one whose rows have no time of their own is the hardest to see.
    stamp = layout.timestamp_field("track_audio_features")
    with Connection(redis) as connection:
        (keys,) = connection.ask(encoded(b"KEYS", b"*" + dataset.name.encode()), 1)
        for key in keys:
            connection.ask(encoded(b"HDEL", key, stamp), 1)
    _, lost = features.feast(materialized)
    assert (lost.state, "was it emptied?" in lost.said) == ("broken", True)
    assert "track_audio_features" in lost.said
    assert lost.fix.endswith(f"--all dataset={dataset.name}")

    monkeypatch.setattr(repository, "definition", lambda view: "another")
    (other,) = features.feast(materialized)
    assert (other.state, "another definition" in other.said) == ("broken", True)
    assert f"scripts/feature_store.py dataset={dataset.name} apply" in other.fix


def test_a_model_of_another_dataset_is_broken(dataset, asked, tmp_path):
    architecture = {"catalogue_size": 2, "max_length": 5, "dim": 8, "blocks": 1, "heads": 2}
    for name, ids in {"ours": ["track-1", "track-2"], "theirs": ["a", "b"]}.items():
        bundle = bundles.new_bundle(
            SASRec(**architecture, dropout=0.0),
            Catalogue(ids, [None] * 2, [None] * 2, np.array([2, 1])),
            architecture=architecture,
            config={},
            metrics={"protocol": {"seen": "keep", "dataset": dataset.name}},
            data_fingerprint="f00d",
        )
        bundles.save(bundle, tmp_path / f"{name}.pt")
    states = {
        name: [each.state for each in models.model(Asked(bundle=str(tmp_path / f"{name}.pt")))]
        for name in ("ours", "theirs")
    }
    assert states == {"ours": ["ok", "ok"], "theirs": ["ok", "broken"]}


def test_all_that_is_broken_is_told_at_once_with_status_1(tmp_path):
    torch.save({"weights": torch.zeros(1000)}, tmp_path / "model.pt")
    torn = (tmp_path / "model.pt").read_bytes()[:2000]
    (tmp_path / "model.pt").write_bytes(torn)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # an LLM that never answers
        process = command(
            "doctor",
            "--json",
            "online=true",
            cwd=tmp_path,
            MUSICREC_HOME=str(tmp_path / "home"),
            DATABASE_URL="postgresql://me:hunter22@127.0.0.1:1/db",
            OPENAI_API_KEY="sk-0123456789",
            OPENAI_BASE_URL=f"http://127.0.0.1:{silent.getsockname()[1]}/v1",
        )
        status, out, err = finished(process)
    assert (status, err) == (1, "")
    broken = {c["check"]: c for c in json.loads(out)["checks"] if c["state"] == "broken"}
    assert broken.keys() == {"Postgres", "model", "LLM openai"}
    assert all(check["fix"] for check in broken.values())
    assert not {"hunter22", "sk-0123456789"} & set(out.replace(":", " ").replace("@", " ").split())
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]
