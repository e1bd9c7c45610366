from __future__ import annotations

import importlib.util

import pytest

from musicrec.database import embedded_redis
from musicrec.database.redis_address import RedisAddress, redis_address
from musicrec.errors import DatabaseError


@pytest.fixture(autouse=True)
def no_redis_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOST", "PORT", "PASSWORD", "SSL", "CLUSTER"):
        monkeypatch.delenv(f"FEAST_REDIS_{name}", raising=False)


def test_the_environment_names_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEAST_REDIS_HOST", "redis.example")
    assert redis_address() == RedisAddress("redis.example", 6379, None, False)
    monkeypatch.setenv("FEAST_REDIS_PORT", "6390")
    monkeypatch.setenv("FEAST_REDIS_PASSWORD", "geheim")
    monkeypatch.setenv("FEAST_REDIS_SSL", "true")
    assert redis_address() == RedisAddress("redis.example", 6390, "geheim", True)
    monkeypatch.setenv("FEAST_REDIS_CLUSTER", "true")
    assert redis_address() == RedisAddress("redis.example", 6390, "geheim", True, is_cluster=True)


def test_a_port_without_a_host_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEAST_REDIS_PORT", "6390")
    with pytest.raises(DatabaseError, match="FEAST_REDIS_PORT=6390 without FEAST_REDIS_HOST"):
        redis_address()


def test_a_cluster_without_a_host_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEAST_REDIS_CLUSTER", "true")
    with pytest.raises(DatabaseError, match="FEAST_REDIS_CLUSTER=true without FEAST_REDIS_HOST"):
        redis_address()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HOST", "a" * 64),
        ("PORT", "0"),
        ("PORT", "6379a"),
        ("SSL", "maybe"),
        ("CLUSTER", "three nodes"),
    ],
)
def test_what_cannot_be_read_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv("FEAST_REDIS_HOST", "redis.example")
    monkeypatch.setenv(f"FEAST_REDIS_{name}", value)
    with pytest.raises(DatabaseError, match=f"FEAST_REDIS_{name}='{value}'"):
        redis_address()


def test_no_password_is_shown() -> None:
    address = RedisAddress("redis.example", 6379, "geheim")
    assert "geheim" not in repr(address)
    assert "geheim" not in str(address.failure(OSError("AUTH geheim refused")))


def test_without_the_wheel_the_way_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DatabaseError, match=r"install musicrec\[features\], or set FEAST_REDIS_"):
        embedded_redis.running_server()
