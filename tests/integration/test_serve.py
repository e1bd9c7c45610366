"""``scripts/serve.py`` as people start it: two workers, a dataset, a key, no features."""

from __future__ import annotations

import json
import signal
import socket
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import plays
from drills import Service, bundle_of, eventually, serving
from graphs import EVENINGS, store_graphs
from musicrec.database import engine
from musicrec.registry import bundle as bundles

pytestmark = pytest.mark.slow

KEY = "a-key-that-nobody-guesses"
TRACKS = [f"t{number}" for number in range(1, 81)]
LISTENER = "listener-4711"


def ask(service: Service, path: str, body: object = None, key: str = KEY) -> tuple[int, Any]:
    """Over a connection of its own, which either worker may take."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{service.port}{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "X-API-Key": key},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            status, content = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        status, content = error.code, error.read()
    return status, json.loads(content) if content.startswith((b"{", b"[")) else content.decode()


@pytest.fixture(scope="module")
def service(postgres, tmp_path_factory) -> Iterator[Service]:
    name = f"test_{uuid.uuid4().hex[:16]}"
    folder: Path = tmp_path_factory.mktemp("service")
    bundles.save(bundle_of(TRACKS), folder / "named.pt")
    now = datetime.now(UTC)
    with engine.open_dataset(name, create=True) as dataset:
        heard = [
            plays.Play(user, track, now - timedelta(days=3, minutes=place))
            for user in (LISTENER, "other")
            for place, track in enumerate(TRACKS[:20])
        ]
        plays.store(dataset, heard, {track: {"title": track} for track in TRACKS})
        store_graphs(dataset, "with a graph", [EVENINGS, EVENINGS])
    # Patient: what it drills is no answer without Postgres, however busy the machine is.
    settings = (
        f"dataset={name}",
        "service=null",
        "workers=2",
        "log_requests=true",
        "budget_ms=2000",
    )
    environment = {
        "MUSICREC_API_KEY": f"an-older-key,{KEY}",
        "SEQUENTIAL_MODEL_PATH": str(folder / "named.pt"),
        "TMPDIR": str(folder),
    }
    with serving(*settings, cwd=folder, **environment) as service:
        eventually(lambda: len(service.facts("model taken")) == 2)
        yield service
    engine.drop_dataset(name)


def test_it_says_where_it_answers_and_which_model_it_looks_for(service):
    said = service.said().splitlines()[0]
    assert f"http://127.0.0.1:{service.port}" in said
    assert "named.pt" in said


def test_what_was_disliked_is_in_no_workers_next_answer(service):
    status, answer = ask(service, "/recommend", {"user_id": LISTENER, "k": 5})
    assert status == 200
    assert answer["rung"] == "full"
    first = answer["tracks"][0]["track_id"]
    event = {"user_id": LISTENER, "track_id": first, "kind": "dislike"}
    assert ask(service, "/events", event)[1]["is_new"] is True
    for _ in range(12):
        _, answer = ask(service, "/recommend", {"user_id": LISTENER, "k": 5})
        assert first not in [track["track_id"] for track in answer["tracks"]]


def test_a_play_that_is_sent_twice_counts_once(service):
    event = {
        "user_id": "new",
        "track_id": TRACKS[3],
        "kind": "listen",
        "occurred_at": datetime.now(UTC).isoformat(),
        "ms_played": 1000,
    }
    assert [ask(service, "/events", event)[1]["is_new"] for _ in range(3)] == [True, False, False]
    _, answer = ask(service, "/recommend", {"user_id": "new", "k": 5})
    assert answer["rung"] == "full"


def test_an_event_of_an_unknown_track_names_it(service):
    status, answer = ask(
        service, "/events", {"user_id": "new", "track_id": "no such track", "kind": "like"}
    )
    assert status == 422
    assert "'no such track'" in answer["detail"]


def test_a_listener_nobody_knows_gets_what_is_popular(service):
    status, answer = ask(service, "/recommend", {"user_id": "nobody", "k": 5})
    assert status == 200
    assert answer["rung"] == "popularity"
    assert answer["degraded"] == []
    assert len(answer["tracks"]) == 5


def test_a_graph_comes_with_its_evidence_and_its_versions(service):
    status, graph = ask(service, "/users/with%20a%20graph/interest-graph")
    assert status == 200
    assert graph["version"] == 2
    assert graph["nodes"][0]["evidence"][0]["track_id"] == "roads"
    assert graph["provenance"]["provider"] == "anthropic"
    _, versions = ask(service, "/users/with%20a%20graph/interest-graph/versions")
    assert [each["version"] for each in versions["versions"]] == [1, 2]
    assert ask(service, f"/users/{LISTENER}/interest-graph")[0] == 404


def test_any_worker_gives_the_figures_of_all(service):
    for _ in range(20):
        ask(service, "/similar", {"track_id": TRACKS[0]})
    for _ in range(4):
        _, figures = ask(service, "/metrics")
        counted = 'musicrec_requests_total{method="POST",route="/similar",status="200"} 20.0'
        assert counted in figures
        (workers,) = [
            line for line in figures.splitlines() if line.startswith("musicrec_model_workers{")
        ]
        assert workers.endswith(" 2.0")


def test_nothing_that_it_says_holds_a_secret_or_a_listener(service):
    ask(service, "/recommend", {"user_id": LISTENER, "history": TRACKS[:3]}, key="a-wrong-key")
    assert len(service.facts("request")) > 1
    for private in (KEY, "an-older-key", "a-wrong-key", LISTENER, "4711", '"t1"'):
        assert private not in service.said()


def test_it_ends_in_good_order_when_told_to(tmp_path):
    settings = ("bundle=none.pt", "workers=1")
    environment = {"TMPDIR": str(tmp_path)}
    with serving(*settings, cwd=tmp_path, until="/livez", **environment) as service:
        assert len(list(tmp_path.glob("musicrec-figures-*"))) == 1
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(60) == 128 + signal.SIGTERM
    said = service.said()
    assert f"no model at {tmp_path / 'none.pt'} yet" in said
    assert "make train" in said
    assert "Traceback" not in said
    assert not list(tmp_path.glob("musicrec-figures-*"))


def test_a_caller_that_never_ends_its_body_does_not_keep_it_from_ending(tmp_path):
    settings, environment = ("bundle=none.pt", "workers=1"), {"TMPDIR": str(tmp_path)}
    with (
        serving(*settings, cwd=tmp_path, until="/livez", **environment) as service,
        socket.create_connection(("127.0.0.1", service.port)) as caller,
    ):
        caller.sendall(
            b"POST /recommend HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\n\r\n{"
        )
        ask(service, "/livez")  # so that what was sent before has arrived
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(20) == 128 + signal.SIGTERM
