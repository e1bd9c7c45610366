"""Whatever fits the service's own OpenAPI, and what does not: no answer is a failure of ours."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import booleans, sampled_from
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

import plays
from apps import answering, app_of
from drills import bundle_of
from graphs import DAY, EVENINGS, store_graphs
from musicrec.database import engine
from musicrec.database.engine import Dataset
from musicrec.registry import bundle as bundles

pytestmark = pytest.mark.slow

QUIET: dict[str, Any] = {
    "phases": [Phase.explicit, Phase.generate],
    "suppress_health_check": list(HealthCheck),
    "database": None,
    "derandomize": True,
}
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]

TRACKS = [f"syn-{number:06}" for number in range(1, 61)]  # those of the examples among them


@pytest.fixture(scope="module")
def dataset(postgres) -> Iterator[Dataset]:
    name = "test_fuzz"
    with engine.open_dataset(name, create=True) as opened:
        played = [
            plays.Play("42", track, DAY + plays.DAY * place) for place, track in enumerate(TRACKS)
        ]
        plays.store(opened, played, {track: {"title": track} for track in TRACKS})
        store_graphs(opened, "42", [EVENINGS])
        yield opened
    engine.drop_dataset(name)


@pytest.fixture(scope="module")
def api(dataset, redis, tmp_path_factory) -> Iterator[Any]:
    """The service's description, as the service itself gives it."""
    path: Path = tmp_path_factory.mktemp("fuzz") / "model.pt"
    bundles.save(bundle_of(TRACKS, ranked=True), path)
    with answering(app_of(path, dataset=dataset, redis=redis)) as place:
        yield schemathesis.openapi.from_url(f"{place}/openapi.json")


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    """A connection that is kept: a new one for each request costs more than its answer."""
    with requests.Session() as session:
        yield session


OPERATIONS = {
    ("POST", "/recommend"),
    ("POST", "/similar"),
    ("POST", "/events"),
    ("POST", "/features"),
    ("GET", "/users/{user_id}/interest-graph"),
    ("GET", "/users/{user_id}/interest-graph/versions"),
    ("GET", "/livez"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
}


def test_these_are_all_operations(api):
    found = {(each.ok().method.upper(), each.ok().path) for each in api.get_all_operations()}
    assert found == OPERATIONS


@pytest.mark.parametrize(("method", "path"), sorted(OPERATIONS))
def test_no_request_that_fits_makes_the_service_fail(api, session, method, path):
    @settings(max_examples=40, **QUIET)
    @given(case=api[path][method].as_strategy(), track=sampled_from(TRACKS), is_known=booleans())
    def asked(case: schemathesis.Case, track: str, is_known: bool) -> None:
        if is_known and isinstance(case.body, dict):  # else nobody would ever be known
            known = {"user_id": "42", "track_id": track, "track_ids": TRACKS, "history": TRACKS}
            case.body |= {key: known[key] for key in known.keys() & case.body.keys()}
        case.call_and_validate(checks=CHECKS, session=session)

    asked()


@pytest.mark.parametrize(("method", "path"), sorted(o for o in OPERATIONS if o[0] == "POST"))
def test_no_request_that_does_not_fit_makes_the_service_fail(api, session, method, path):
    @settings(max_examples=15, **QUIET)
    @given(case=api[path][method].as_strategy(GenerationMode.NEGATIVE))
    def asked(case: schemathesis.Case) -> None:
        case.call_and_validate(checks=CHECKS, session=session)

    asked()


@pytest.mark.parametrize(
    ("written", "status"),
    [
        ("42", 200),
        ("a%2Fb", 404),
        ("..", 404),
        ("%F0%9F%8E%B5", 404),
        ("%FF", 404),
        ("%00", 422),
        ("a" * 513, 422),
        ("", 422),
    ],
)
def test_any_id_may_be_asked_about_in_a_path(api, written, status):
    host, port = urlsplit(api.get_base_url()).netloc.split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)  # changes nothing in paths
    connection.request("GET", f"/users/{written}/interest-graph")
    assert connection.getresponse().status == status
    connection.close()
