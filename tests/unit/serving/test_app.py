"""The app as callers see it, without a dataset: what it answers, refuses, counts and logs."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient

from apps import app_of
from drills import bundle_of
from musicrec.registry import bundle as bundles
from musicrec.serving.entrance import Entrance, Rules
from musicrec.serving.logs import JsonLines
from musicrec.serving.measures import Measures
from musicrec.serving.security import Keys, RateLimit

IDS = [f"track-{number}" for number in range(1, 101)]
KEY = "a-key-of-the-test"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "model.pt"
    bundles.save(bundle_of(IDS), path)
    return path


@pytest.fixture(scope="module")
def client(model) -> Iterator[TestClient]:
    with TestClient(app_of(model)) as client:
        yield client


@pytest.fixture
def lines(monkeypatch) -> list[str]:
    """What is logged, as it is written."""
    written: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(JsonLines().format(record))

    logger = logging.getLogger("musicrec")
    monkeypatch.setattr(logger, "level", logging.INFO)
    logger.manager._clear_cache()  # whether a level is on is remembered
    handler = Kept()
    logger.addHandler(handler)
    yield written
    logger.removeHandler(handler)


def test_an_answer_names_tracks_and_says_what_it_rests_on(client):
    answer = client.post("/recommend", json={"history": IDS[:5], "k": 3}).json()
    assert len(answer["tracks"]) == 3
    first = answer["tracks"][0]
    assert first["title"] == f"Title of {first['track_id']}"
    assert first["artist"] == f"Artist of {first['track_id']}"
    assert first["sources"]
    assert first["reasons"]
    scores = [track["score"] for track in answer["tracks"]]
    assert scores == sorted(scores, reverse=True)
    assert answer["rung"] == "full"
    assert answer["degraded"] == []
    assert answer["model_version"]
    assert {"history", "score", "rank"} <= set(answer["stages"])


def test_unknown_and_excluded_tracks_are_dealt_with(client):
    body = {"history": [*IDS[:5], "new"], "exclude": IDS[10:], "k": 20, "seen": "drop"}
    answer = client.post("/recommend", json=body).json()
    assert answer["unknown"] == ["new"]
    assert {track["track_id"] for track in answer["tracks"]} == set(IDS[5:10])


def test_neighbours_of_a_track_are_others_with_their_names(client):
    answer = client.post("/similar", json={"track_id": IDS[0], "k": 4}).json()
    assert answer["track"]["title"] == f"Title of {IDS[0]}"
    assert len(answer["tracks"]) == 4
    assert IDS[0] not in {track["track_id"] for track in answer["tracks"]}


def test_a_track_that_the_model_does_not_know_has_no_neighbours(client):
    reply = client.post("/similar", json={"track_id": "new"})
    assert reply.status_code == 404
    assert "'new'" in reply.json()["detail"]


@pytest.mark.parametrize("path", ["/events", "/features", "/users/42/interest-graph", "/nowhere"])
def test_what_needs_a_dataset_is_not_there_without_one(client, path):
    reply = client.get(path) if "users" in path else client.post(path, json={})
    assert reply.status_code == 404
    assert "detail" in reply.json()


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"",
        b"[" * 100_000,
        b'{"user_id": ' * 50_000,
        b'{"user_id": "\\ud800"}',
        b'{"user_id": "\xff"}',
        b'{"history": ["a"], "k": NaN}',
        b'{"history": ["a"], "k": 1e400}',
        b'{"history": ["a"], "k": 1' + b"0" * 5000 + b"}",
    ],
)
def test_no_body_makes_it_fail(client, body):
    reply = client.post("/recommend", content=body, headers={"Content-Type": "application/json"})
    assert reply.status_code == 422
    assert reply.json()["detail"]


def test_a_body_that_is_wrong_is_told_where_and_not_repeated(client):
    body = {"history": ["secret taste"], "k": 500, "context": {"session": ["shame", 3]}}
    reply = client.post("/recommend", json=body)
    assert reply.status_code == 422
    assert [p["loc"] for p in reply.json()["detail"]] == [["k"], ["context", "session", 1]]
    assert "secret taste" not in reply.text
    assert "shame" not in reply.text


def test_a_thousand_problems_are_told_in_few_words(client):
    reply = client.post("/recommend", json={"history": [1] * 1000})
    assert reply.status_code == 422
    assert len(reply.json()["detail"]) <= 20


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_a_body_that_a_browser_may_send_to_strangers_is_refused(client, kind):
    reply = client.post("/recommend", content=b'{"history": []}', headers={"Content-Type": kind})
    assert reply.status_code == 415


def test_without_a_model_it_lives_and_says_where_it_looked_and_how_to_make_one(tmp_path):
    with TestClient(app_of(tmp_path / "nothing" / "model.pt")) as client:
        assert client.get("/livez").status_code == 204
        ready = client.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["ready"] is False
        why = ready.json()["model"]["why"]
        assert str(tmp_path / "nothing" / "model.pt") in why
        assert "make train" in why
        for path, body in (("/recommend", {"history": []}), ("/similar", {"track_id": "a"})):
            reply = client.post(path, json=body)
            assert reply.status_code == 503
            assert str(tmp_path) not in reply.text


@pytest.fixture(scope="module")
def locked(model) -> Iterator[TestClient]:
    """A service that asks for a key."""
    with TestClient(app_of(model, Rules(Keys([KEY])))) as client:
        yield client


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/recommend"),
        ("POST", "/similar"),
        ("GET", "/metrics"),
        ("GET", "/openapi.json"),
        ("GET", "/docs"),
        ("GET", "/nowhere"),
    ],
)
def test_without_the_key_nobody_learns_anything(locked, method, path):
    for headers in ({}, {"X-API-Key": "wrong"}, {"Authorization": f"Basic {KEY}"}):
        reply = locked.request(method, path, headers=headers)
        assert reply.status_code == 401
        assert reply.headers["www-authenticate"] == "Bearer"
        assert set(reply.json()) == {"detail"}


@pytest.mark.parametrize("headers", [{"X-API-Key": KEY}, {"Authorization": f"Bearer {KEY}"}])
def test_with_the_key_it_answers(locked, headers):
    body = {"history": IDS[:3]}
    assert locked.post("/recommend", json=body, headers=headers).status_code == 200


def test_whether_it_is_ready_is_told_to_everybody_and_why_to_holders_of_a_key(locked):
    assert locked.get("/livez").status_code == 204
    assert locked.get("/readyz").json() == {"ready": True}
    assert "model" in locked.get("/readyz", headers={"X-API-Key": KEY}).json()


def test_a_body_over_the_limit_is_refused_said_or_unsaid(model):
    with TestClient(app_of(model, Rules(max_body_bytes=1000))) as client:
        large = json.dumps({"history": IDS * 5}).encode()
        headers = {"Content-Type": "application/json"}
        assert client.post("/recommend", content=large, headers=headers).status_code == 413
        parts = (large[start : start + 100] for start in range(0, len(large), 100))
        unsaid = client.post("/recommend", content=parts, headers=headers)
        assert unsaid.status_code == 413
        assert "1000 bytes" in unsaid.json()["detail"]
        small = client.post("/recommend", json={"history": IDS[:5]})
        assert small.status_code == 200


def test_over_the_rate_a_caller_is_told_when_to_come_again(model):
    with TestClient(app_of(model, Rules(rate_limit=RateLimit(2)))) as client:
        statuses = [client.post("/recommend", json={"history": []}).status_code for _ in range(3)]
        assert statuses == [200, 200, 429]
        reply = client.get("/metrics")
        assert reply.status_code == 429
        assert 1 <= int(reply.headers["retry-after"]) <= 61
        assert client.get("/livez").status_code == 204


def test_guesses_of_the_key_are_counted(model):
    with TestClient(app_of(model, Rules(Keys([KEY]), RateLimit(3)))) as client:
        guesses = [
            client.get("/metrics", headers={"X-API-Key": f"guess {number}"}).status_code
            for number in range(5)
        ]
        assert guesses == [401, 401, 401, 429, 429]
        assert client.get("/metrics", headers={"X-API-Key": KEY}).status_code == 200


def test_a_bug_is_told_to_the_log_by_name_and_its_words_to_nobody(model, lines, monkeypatch):
    app = app_of(model)

    async def broken(*_: object) -> Any:
        raise RuntimeError("history of user 42: secret taste")

    monkeypatch.setattr("musicrec.serving.recommending.RecommendService.recommend", broken)
    with TestClient(app) as client:
        reply = client.post("/recommend", json={"history": []})
    assert reply.status_code == 500
    failed = next(json.loads(line) for line in lines if '"failed"' in line)
    assert failed["failure"] in reply.json()["detail"]
    assert failed["error"] == "RuntimeError"
    assert any("recommend_routes.py" in place for place in failed["where"])
    assert "secret taste" not in reply.text + "".join(lines)
    assert ".py" not in reply.text


def test_the_log_tells_how_a_request_went_and_nothing_of_whom(model, lines):
    rules = Rules(Keys([KEY]), logs_requests=True)
    with TestClient(app_of(model, rules)) as client:
        body = {
            "user_id": "user-4711",
            "history": IDS[:3],
            "context": {"device": "her phone", "session": ["shame"]},
        }
        client.post("/recommend", json=body, headers={"X-API-Key": KEY})
        client.get("/users/user-4711/interest-graph?of=user-4711", headers={"X-API-Key": KEY})
        client.post("/recommend", json=body, headers={"X-API-Key": "a-wrong-key"})
    requests = [json.loads(line) for line in lines if '"request"' in line]
    assert [(r["method"], r["status"]) for r in requests] == [
        ("POST", 200),
        ("GET", 404),
        ("POST", 401),
    ]
    assert requests[0]["route"] == "/recommend"
    assert requests[0]["rung"]
    assert requests[0]["ms"] > 0
    said = "".join(lines)
    for private in ("4711", *IDS[:3], "her phone", "shame", KEY, "a-wrong-key", "testclient"):
        assert private not in said


NAMES = (
    "musicrec_requests_total",
    "musicrec_request_seconds_bucket",
    "musicrec_stage_seconds_bucket",
    "musicrec_answers_total",
    "musicrec_model_workers",
    "musicrec_model_loads_total",
)


def test_figures_have_their_names_and_no_ids(model):
    with TestClient(app_of(model)) as client:
        version = client.post("/recommend", json={"history": IDS[:3]}).json()["model_version"]
        client.get("/users/user-4711/interest-graph")
        client.request("BREW", "/recommend")
        figures = client.get("/metrics").text
    for name in NAMES:
        assert f"\n{name}{{" in figures
    assert f'musicrec_model_workers{{version="{version}"}} 1.0' in figures
    assert 'musicrec_requests_total{method="POST",route="/recommend",status="200"} 1.0' in figures
    assert 'method="other"' in figures
    assert "4711" not in figures


def operations(app: FastAPI) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in app.openapi()["paths"].items():
        for operation in methods.values():
            yield path, operation


def test_every_operation_is_described_with_examples(client):
    described = dict(operations(client.app))
    assert {"/recommend", "/similar", "/livez", "/readyz", "/metrics"} <= set(described)
    for path, operation in described.items():
        assert operation["description"], path
        if "requestBody" in operation:
            content = operation["requestBody"]["content"]["application/json"]
            assert content["examples"], path
            assert operation["responses"]["200"]["content"]["application/json"]["example"], path
            assert {"401", "413", "415", "422", "429"} <= set(operation["responses"]), path


def test_openapi_says_how_a_key_is_sent(client):
    schemes = client.get("/openapi.json").json()["components"]["securitySchemes"]
    assert schemes["key"]["name"] == "X-API-Key"
    assert schemes["bearer"]["scheme"] == "bearer"


def test_a_caller_that_goes_in_the_midst_of_its_body_is_no_failure(lines):
    async def reads(scope, receive, send):
        await Request(scope, receive).body()

    async def goes():
        return {"type": "http.disconnect"}

    async def nobody(message):
        raise AssertionError(message)

    measures = Measures()
    scope = {"type": "http", "method": "POST", "path": "/recommend", "headers": []}
    asyncio.run(Entrance(reads, Rules(), measures)(scope, goes, nobody))
    assert not lines
    assert b'status="500"' not in measures.exposition()


def test_a_graph_that_hangs_does_not_keep_the_process_from_ending():
    script = """
import asyncio, threading
from musicrec.errors import ServingError
from musicrec.serving.graph_routes import GraphService

class Hangs:
    def current(self, user_id):
        threading.Event().wait()

service = GraphService(Hangs(), seconds=0.1)
try:
    asyncio.run(service.current("ada"))
except ServingError as error:
    print(error)
service.close()
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True
    )
    assert ended.stdout == "Postgres did not answer within 0.1 s\n"
