"""A provider is asked for by name; what cannot work is said at once, in one line."""

from __future__ import annotations

import pytest

from musicrec.errors import ConfigError
from musicrec.graph.provider import Price
from musicrec.graph.providers import provider_of


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, "sk-secret-4711")
    for name in ("ANTHROPIC_BASE_URL", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("name", "variable"), [("anthropic", "ANTHROPIC_API_KEY"), ("openai", "OPENAI_API_KEY")]
)
@pytest.mark.parametrize("value", [None, "", "  \n"])
def test_without_its_key_no_provider_is_made(
    name: str, variable: str, value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if value is None:
        monkeypatch.delenv(variable)
    else:
        monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=variable) as caught:
        provider_of(name)
    assert "\n" not in str(caught.value)


def test_a_key_that_no_header_takes_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-4711\nX-Other: 1")
    with pytest.raises(ConfigError, match="OPENAI_API_KEY") as caught:
        provider_of("openai")
    assert "4711" not in str(caught.value)


def test_a_misspelt_provider_is_told_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'anthropic'"):
        provider_of("antropic")


@pytest.mark.parametrize(
    "base_url", ["localhost:8000", "ftp://host/v1", "https://", "http://[", "http://h:abc/v1"]
)
def test_a_base_url_that_is_none_is_refused(base_url: str) -> None:
    with pytest.raises(ConfigError, match="is no address"):
        provider_of("openai", base_url=base_url)


def test_a_base_url_with_a_password_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        provider_of("openai", base_url="https://me:hunter2@host/v1")
    assert "hunter2" not in str(caught.value)


def test_local_takes_no_base_url() -> None:
    with pytest.raises(ConfigError, match="asks nobody"):
        provider_of("local", base_url="http://host")


@pytest.mark.parametrize("name", ["anthropic", "openai"])
def test_the_key_shows_in_no_repr(name: str) -> None:
    provider = provider_of(name)
    assert "4711" not in repr(provider) + repr(vars(provider))


def test_a_price_is_known_of_the_default_models_and_of_what_is_said() -> None:
    assert provider_of("anthropic").price == Price(0.1, 0.5, cached=0.01, cache_written=0.125)
    assert provider_of("openai").price == Price(0.1, 0.5)
    assert provider_of("openai", model="my-own").price is None
    assert provider_of("openai", model="my-own", price=Price(1, 2)).price == Price(1, 2)
