"""``POST /features`` as a caller sees it: the commands as people type them, a server, a Redis."""

from __future__ import annotations

import json
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from commands import command, done, finished
from musicrec.cli.compose import compose
from musicrec.cli.listens import dataset_name, source_of
from musicrec.database import engine
from musicrec.features import layout
from musicrec.features.connection import Connection
from musicrec.features.context import Context
from musicrec.features.online import OnlineStore
from musicrec.features.plan import ReadPlan
from musicrec.features.resp import encoded
from musicrec.features.views import ALWAYS, BY_NAME, STORED

pytestmark = pytest.mark.slow

WORLD = ("data=synthetic", "data.num_tracks=200", "data.num_listeners=60")
#: The synthetic world keeps a dataset of its own.
NAME = dataset_name(config := compose("import", WORLD), source_of(config))
AUDIO = BY_NAME["track_audio_features"]
CONTEXT = {"hour": 8, "weekday": 6, "device": "android", "session": ["syn-000001"]}


def post(port: int, body: object, path: str = "/features") -> tuple[int, Any]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}",
        data=body if isinstance(body, bytes) else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.fixture(scope="module")
def as_of(postgres, redis, tmp_path_factory) -> str:
    """A day after the last play of a small synthetic dataset, which was materialized then."""
    folder = tmp_path_factory.mktemp("serve")
    done(command("import_interactions", *WORLD, cwd=folder))
    with engine.open_dataset(NAME) as dataset, dataset.engine.connect() as connection:
        last = connection.exec_driver_sql("SELECT max(occurred_at) FROM interactions").scalar_one()
    moment = (last + timedelta(days=1)).isoformat()
    done(
        command("materialize_features", "--all", f"dataset={NAME}", f"as_of='{moment}'", cwd=folder)
    )
    return moment


@pytest.fixture(scope="module")
def port(as_of, tmp_path_factory) -> Iterator[int]:
    """Where a server with two workers answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = command(
        "serve",
        f"dataset={NAME}",
        f"as_of='{as_of}'",
        f"port={port}",
        "workers=2",
        "timeout_seconds=10",
        cwd=tmp_path_factory.mktemp("server"),
    )
    deadline = time.monotonic() + 60
    while True:
        assert process.poll() is None, finished(process)
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=5)
            break
        except OSError:
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.05)
    yield port
    process.send_signal(signal.SIGTERM)
    finished(process)


@pytest.fixture(scope="module")
def listener(as_of) -> str:
    with engine.open_dataset(NAME) as dataset, dataset.engine.connect() as connection:
        return connection.exec_driver_sql(
            "SELECT user_id FROM users JOIN interactions USING (user_key)"
            " ORDER BY occurred_at DESC LIMIT 1"
        ).scalar_one()


def test_the_answer_over_http_is_what_the_store_reads(port, as_of, listener, redis):
    tracks = [f"syn-{number:06}" for number in range(1, 21)]
    status, answer = post(port, {"user_id": listener, "track_ids": tracks, "context": CONTEXT})
    assert status == 200
    store = OnlineStore(ReadPlan(NAME), redis, timeout_seconds=10)
    matrix = store.read(listener, tracks, Context(**CONTEXT), datetime.fromisoformat(as_of))
    assert answer["columns"] == list(matrix.columns)
    assert answer["track_ids"] == tracks
    read = [[None if value != value else value for value in row] for row in matrix.values.tolist()]
    assert answer["values"] == [pytest.approx(row) for row in read]
    assert answer["states"]["user_listening_stats"] == ["fresh"] * 20
    assert set(answer["states"]) == {view.name for view in STORED}
    assert answer["reason"] is None


def test_a_stranger_and_an_unknown_track_are_missing_not_wrong(port):
    _, answer = post(port, {"user_id": "nobody", "track_ids": ["no such track"]})
    assert {state for states in answer["states"].values() for state in states} == {"missing"}
    assert answer["values"] == [[None] * len(answer["columns"])]


def test_a_request_may_name_the_moment(port, listener):
    body = {"user_id": listener, "track_ids": ["syn-000001"], "as_of": "2040-01-01T00:00:00Z"}
    _, answer = post(port, body)
    assert answer["states"]["user_listening_stats"] == ["stale"]
    assert answer["states"]["track_audio_features"] == ["fresh"]


@pytest.mark.parametrize(
    ("field", "content"),
    [
        (layout.fields(AUDIO)[0], layout.value(1.0)[:-1]),
        (layout.timestamp_field(AUDIO.name), b"\x08\xff"),
    ],
    ids=["value", "stamp"],
)
def test_what_cannot_be_read_is_unavailable_and_named(port, redis, field, content):
    key = layout.key(layout.key_prefix(AUDIO.join_keys), ("torn",), NAME.encode())
    whole = {layout.timestamp_field(AUDIO.name): layout.timestamp(ALWAYS), field: content}
    with Connection(redis) as connection:
        pairs = [part for pair in whole.items() for part in pair]
        connection.ask(encoded(b"HSET", key, *pairs) + encoded(b"EXPIRE", key, b"600"), 2)
    body = {"user_id": "nobody", "track_ids": ["torn"], "context": CONTEXT}
    status, answer = post(port, body)
    assert status == 200
    assert {state for states in answer["states"].values() for state in states} == {"unavailable"}
    assert "track_audio_features" in answer["reason"]
    known = dict(zip(answer["columns"], answer["values"][0], strict=True))
    assert known["context_aware_features__is_weekend"] == 1


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"track_ids": ["a"]}, ["user_id"]),
        ({"user_id": "a", "track_ids": []}, ["track_ids"]),
        ({"user_id": "a", "track_ids": ["b"], "context": {"hour": 24}}, ["context", "hour"]),
        ({"user_id": "a", "track_ids": ["b"], "contxt": {}}, ["contxt"]),
        ({"user_id": "a", "track_ids": ["b"], "as_of": "2024-01-01T00:00:00"}, ["as_of"]),
        ({"user_id": "a", "track_ids": ["b"] * 1001}, ["track_ids"]),
        (b"{", []),
    ],
)
def test_a_body_that_is_wrong_is_told_where(port, body, place):
    status, answer = post(port, body)
    assert status == 422
    assert [problem["loc"] for problem in answer["detail"]] == [place]


def test_the_api_describes_its_bodies(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/openapi.json", timeout=30) as answer:
        described = json.load(answer)["paths"]["/features"]["post"]
    schema = described["requestBody"]["content"]["application/json"]["schema"]
    assert set(schema["required"]) == {"user_id", "track_ids"}
    assert described["responses"]["200"]["content"]["application/json"]["example"]


def test_a_dataset_without_features_is_one_line(postgres, redis, dataset, tmp_path):
    code, _, err = finished(command("serve", f"dataset={dataset.name}", "port=0", cwd=tmp_path))
    assert code == 2
    assert err.startswith("error: ")
    assert "scripts/feature_store.py" in err
    assert len(err.strip().splitlines()) == 1, err
