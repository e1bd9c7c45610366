"""What the server's command refuses before anything is loaded, and what its workers are told."""

from __future__ import annotations

import os
import socket
import sys

import pytest

from musicrec.cli import serve as cli
from musicrec.cli.compose import compose
from musicrec.cli.worker import Orders
from musicrec.database.redis_address import RedisAddress, redis_address
from musicrec.errors import ConfigError


def refusal(*overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        cli.serve(compose("serve", ["dataset=mine", *overrides]))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("workers=0", "workers=0 must be at least 1"),
        ("workers=null", "workers=null makes no sense"),
        ("host=null", "host=null makes no sense"),  # asyncio would listen everywhere
        ("timeout_seconds=0", "must be above 0"),
        ("candidates=49", "candidates=49 must be at least 50"),
        ("candidates=1001", "candidates=1001 must be at most 1000"),
        ("explore=0.6", "explore=0.6 must be at most 0.5"),
        ("explore=nan", "explore=nan must be at least 0"),
        ("budget_ms=0", "budget_ms=0 must be at least 1"),
        ("budget_ms=null", "budget_ms=null makes no sense"),
        ("refresh_seconds=0", "refresh_seconds=0 must be at least 1"),
        ("watch_seconds=0", "watch_seconds=0 must be at least 0.1"),
        ("max_body_bytes=0", "max_body_bytes=0 must be at least 1"),
        ("rate_limit_per_minute=0", "rate_limit_per_minute=0 must be at least 1"),
        ("rate_limit_per_minute=often", "rate_limit_per_minute=often is no number"),
        ("approximate_above=0", "approximate_above=0 must be at least 1"),
        ("ranker=perhaps", "ranker=perhaps is not one of true, false, null"),
        ("port=99999", "port=99999 is none"),  # which uvloop would take for 34463
        ("host=" + "a" * 70, "cannot listen at"),
    ],
)
def test_a_setting_that_cannot_work_is_named(override, said):
    assert said in refusal(override)


def test_a_port_that_is_taken_is_said_with_the_way_out():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refusal(f"port={port}")
    assert f"cannot listen at 127.0.0.1:{port}: Address already in use" in said
    assert "another host= or port=" in said


def test_workers_find_the_embedded_server_whatever_else_the_environment_says(monkeypatch):
    for name in ("HOST", "PORT", "PASSWORD"):
        monkeypatch.setenv(f"FEAST_REDIS_{name}", "")  # to be put back
    monkeypatch.setenv("FEAST_REDIS_SSL", "true")
    cli._name_server(RedisAddress("127.0.0.1", 12345, "secret", is_embedded=True))
    found = redis_address()
    assert (found.place, found.password, found.ssl) == ("127.0.0.1:12345", "secret", False)


def test_a_variable_of_keys_that_holds_none_is_refused(monkeypatch):
    monkeypatch.setenv("MUSICREC_API_KEY", " , ")
    assert "MUSICREC_API_KEY" in refusal("port=0")


def test_what_the_workers_are_told_holds_no_secret(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MUSICREC_SERVE", "")  # to be put back
    monkeypatch.setenv("MUSICREC_API_KEY", "a-secret")
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:a-secret@localhost/db")
    orders = cli._orders(compose("serve", []))
    orders.give()
    assert "a-secret" not in os.environ["MUSICREC_SERVE"]
    assert Orders.taken() == orders


@pytest.mark.parametrize(
    ("override", "variable", "path"),
    [
        ("bundle=mine.pt", "other.pt", "mine.pt"),
        ("bundle=null", "other.pt", "other.pt"),
        ("bundle=null", "", "model.pt"),
    ],
)
def test_the_setting_names_the_model_and_else_the_environment_does(
    override, variable, path, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEQUENTIAL_MODEL_PATH", variable)
    assert cli._orders(compose("serve", [override])).bundle == str(tmp_path / path)


@pytest.mark.parametrize("package", ["fastapi", "psycopg_pool", "uvloop"])
def test_a_package_that_is_missing_is_named_with_what_brings_it(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    assert f"{package}; install musicrec[serve]" in refusal()
