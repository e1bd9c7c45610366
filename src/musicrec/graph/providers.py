"""Which provider a name means, what it costs, and whether it can be asked at all."""

from __future__ import annotations

import importlib.util
import os
from typing import Literal
from urllib.parse import urlsplit

from musicrec.errors import ConfigError, nearest
from musicrec.graph.anthropic_provider import AnthropicProvider
from musicrec.graph.local import Local
from musicrec.graph.openai_provider import Api, OpenAIProvider
from musicrec.graph.provider import Price, Provider

NAMES = ("local", "anthropic", "openai")

DEFAULT_MODELS = {"anthropic": "claude-haiku-5-5", "openai": "gpt-6-luna"}

#: List prices as of 2026-11; of any other model the price must be said (``llm.price``). Anthropic
#: takes a tenth for input read from its cache and a quarter more for input written to it.
PRICES = {
    "claude-haiku-5-5": Price(0.10, 0.50, cached=0.01, cache_written=0.125),
    "gpt-6-luna": Price(0.10, 0.50),
}


def provider_of(
    name: str,
    model: str | None = None,
    base_url: str | None = None,
    *,
    api: Api = "responses",
    effort: str | None = "low",
    price: Price | None = None,
) -> Provider:
    """A provider that can be asked.

    Args:
        name: one of ``NAMES``.
        model: None is the default one.
        base_url: of another server that speaks as the provider does; None leaves it to the SDK:
            ``ANTHROPIC_BASE_URL`` or ``OPENAI_BASE_URL``, else the provider's own.
        api: of ``openai``; ``chat`` for servers that have no ``/responses``.
        effort: of the model's thinking; None for models that know none.
        price: None is the list price, where it is known.

    Raises:
        ConfigError: no such provider, no key, no SDK, or a base URL that cannot be one.
    """
    if name not in NAMES:
        known = ", ".join(NAMES)
        raise ConfigError(f"no LLM provider {name!r}{nearest(name, NAMES)}; one of {known}")
    if name == "local":
        if base_url is not None:
            raise ConfigError(f"llm=local asks nobody; llm.base_url={base_url!r} cannot be meant")
        return Local()
    key = _key(name)
    if importlib.util.find_spec(name) is None:
        raise ConfigError(f"llm={name} needs the package {name}; install musicrec[llm]")
    if base_url is not None:
        _check(base_url)
    model = model or DEFAULT_MODELS[name]
    price = price or PRICES.get(model)
    if name == "anthropic":
        return AnthropicProvider(model, key, base_url=base_url, effort=effort, price=price)
    return OpenAIProvider(model, key, base_url=base_url, api=api, effort=effort, price=price)


def _key(name: str) -> str:
    variable: Literal["ANTHROPIC_API_KEY", "OPENAI_API_KEY"] = (
        "ANTHROPIC_API_KEY" if name == "anthropic" else "OPENAI_API_KEY"
    )
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ConfigError(
            f"llm={name} needs a key in the environment variable {variable}, which is not set; "
            "llm=local needs none"
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ConfigError(f"{variable} holds what cannot be a key: spaces or odd characters")
    return key


def _check(base_url: str) -> None:
    try:
        parts = urlsplit(base_url)
        _ = parts.port
    except ValueError:
        raise ConfigError(
            f"llm.base_url={base_url!r} is no address; such as https://host:8000/v1"
        ) from None
    if parts.username or parts.password:
        raise ConfigError("llm.base_url holds a user or a password; keys come from the environment")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"llm.base_url={base_url!r} is no address; such as https://host:8000/v1")
