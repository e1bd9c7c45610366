"""Keys and rates."""

from __future__ import annotations

import asyncio

import pytest

from musicrec.errors import ConfigError
from musicrec.serving.security import Keys, RateLimit


def scope(**headers: str) -> dict[str, object]:
    return {
        "headers": [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()],
    }


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer first-key"},
        {"authorization": "bearer first-key"},
        {"x_api_key": "first-key"},
        {"x_api_key": "zweiter-schlüssel"},
    ],
)
def test_a_key_is_taken_either_way(headers):
    assert Keys.read(" first-key, zweiter-schlüssel ").caller(scope(**headers)) is not None


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x_api_key": ""},
        {"x_api_key": "first"},
        {"x_api_key": "first-key,second-key"},
        {"authorization": "Basic first-key"},
        {"authorization": "first-key"},
    ],
)
def test_anything_else_is_no_key(headers):
    assert Keys.read("first-key,second-key").caller(scope(**headers)) is None


def test_two_keys_are_two_callers_and_neither_name_tells_the_key():
    keys = Keys.read("first-key,second-key")
    names = {keys.caller(scope(x_api_key=key)) for key in ("first-key", "second-key")}
    assert len(names) == 2
    assert not any("first" in name or "second" in name for name in names)


@pytest.mark.parametrize("text", [None, "", "  "])
def test_without_a_key_everybody_is_let_in(text):
    assert not Keys.read(text)


@pytest.mark.parametrize("text", [",", " , ", "two words", "tab\tin"])
def test_a_key_that_cannot_work_is_refused_and_not_shown(text):
    with pytest.raises(ConfigError) as error:
        Keys.read(text)
    assert "words" not in str(error.value)


def test_a_caller_over_the_limit_is_told_to_wait_and_another_is_not():
    async def asked() -> tuple[list[int], int]:
        limit = RateLimit(3)
        return [await limit.seconds_to_wait("a") for _ in range(4)], await limit.seconds_to_wait(
            "b"
        )

    waits, other = asyncio.run(asked())
    assert waits[:3] == [0, 0, 0]
    assert 50 <= waits[3] <= 61
    assert other == 0
