"""What the server's command refuses before anything is loaded, and what its workers are told."""

from __future__ import annotations

import socket

import pytest

from musicrec.cli import serve as cli
from musicrec.cli.compose import compose
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
