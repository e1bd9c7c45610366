"""Anthropic's Messages and Message Batches, by its own SDK (2.12).

A call is ``messages.create`` and not ``parse``, which loses the usage of a truncated reply. There
is no ``temperature``: the SDK has none. A batch bears no name of ours, so each custom id begins
with a tag of our batch id, and ``find`` reads it from the results.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from musicrec.graph.failures import Account, body_of, error_of, refusal_of, told, understood
from musicrec.graph.headers import anthropic_limits
from musicrec.graph.provider import Answer, Ask, BatchState, Limits, Price, ProviderError, Usage
from musicrec.graph.reply_schema import REPLY_SCHEMA

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic

_CONNECT_SECONDS = 10.0
_COUNT_SECONDS = 30.0
_BATCH_SECONDS = 600.0
_TAG = 16

#: How far the provider's clock may be from ours.
_SKEW_SECONDS = 300.0

#: A batch's error has a type and no status.
_STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}

_ENDS: Mapping[str, Literal["truncated", "refused"]] = {
    "max_tokens": "truncated",
    "model_context_window_exceeded": "truncated",
    "refusal": "refused",
}


class AnthropicProvider:
    """Asks one of Anthropic's models.

    Args:
        key: of the API; read from the environment by ``provider_of``.
        base_url: None is Anthropic's own.
        effort: how much the model thinks about it, ``low`` to ``max``; None leaves it to the model.
    """

    name = "anthropic"

    def __init__(
        self,
        model: str,
        key: str,
        *,
        base_url: str | None = None,
        effort: str | None = "low",
        price: Price | None = None,
    ) -> None:
        self.model = model
        self.price = price
        self._effort = effort
        self._account = Account(self.name, model, "ANTHROPIC_API_KEY", key)
        self._sdk = importlib.import_module("anthropic")
        self._client: AsyncAnthropic = self._sdk.AsyncAnthropic(
            api_key=key, base_url=base_url, max_retries=0
        )

    async def ask(self, ask: Ask, *, timeout_seconds: float) -> Answer:
        """See ``Provider``."""
        timeout = self._sdk.Timeout(timeout_seconds, connect=min(_CONNECT_SECONDS, timeout_seconds))
        async with told(self._sdk, self._account, timeout_seconds):
            response = await self._client.messages.with_raw_response.create(
                **self._params(ask), max_tokens=ask.max_tokens, timeout=timeout
            )
            text = await response.text()
        body = body_of(text, self._account)
        with understood(body, self._account):
            return _answer(body, self.model, anthropic_limits(response.headers))

    async def count_tokens(self, ask: Ask) -> int:
        """By ``/v1/messages/count_tokens``, which is free."""
        async with told(self._sdk, self._account, _COUNT_SECONDS):
            response = await self._client.messages.with_raw_response.count_tokens(
                **self._params(ask)
            )
            text = await response.text()
        return int(body_of(text, self._account)["input_tokens"])

    async def submit(self, batch: str, asks: Sequence[tuple[str, Ask]]) -> str:
        """See ``BatchProvider``; a custom id has at most 47 characters of ``a-zA-Z0-9_-``."""
        requests: list[Any] = [
            {
                "custom_id": f"{_tag(batch)}-{custom_id}",
                "params": {**self._params(ask), "max_tokens": ask.max_tokens},
            }
            for custom_id, ask in asks
        ]
        async with told(self._sdk, self._account, _BATCH_SECONDS):
            created = await self._client.messages.batches.create(requests=requests)
        return created.id

    async def find(self, batch: str, since: float, *, known: Collection[str] = ()) -> str | None:
        """See ``BatchProvider``."""
        undecided = 0
        async with told(self._sdk, self._account, _BATCH_SECONDS):
            # Newest first, says the SDK.
            async for listed in self._client.messages.batches.list(limit=100):
                if listed.created_at.timestamp() < since - _SKEW_SECONDS:
                    break
                if listed.id in known:
                    continue
                if listed.processing_status != "ended":
                    undecided += 1
                elif listed.results_url and await self._is_ours(listed.id, batch):
                    return listed.id
        if undecided:
            raise ProviderError(
                f"anthropic still works on {undecided} batches of which one may be ours, and shows "
                "whose they are only once they end; run again later",
                "retry",
            )
        return None

    async def _is_ours(self, provider_batch: str, batch: str) -> bool:
        lines = await self._client.messages.batches.results(provider_batch)
        try:
            async for line in lines:
                return line.custom_id.startswith(f"{_tag(batch)}-")
        finally:
            await lines.close()
        return False

    async def poll(self, provider_batch: str) -> BatchState:
        """See ``BatchProvider``; the counts are zero until all has ended."""
        async with told(self._sdk, self._account, _COUNT_SECONDS):
            found = await self._client.messages.batches.retrieve(provider_batch)
        counts = found.request_counts
        failed = counts.errored + counts.canceled + counts.expired
        return BatchState(found.processing_status == "ended", counts.succeeded, failed)

    async def results(
        self, provider_batch: str
    ) -> AsyncIterator[tuple[str, Answer | ProviderError]]:
        """See ``BatchProvider``."""
        async with told(self._sdk, self._account, _COUNT_SECONDS):
            found = await self._client.messages.batches.retrieve(provider_batch)
        if found.results_url is None:
            raise ProviderError(
                "anthropic keeps this batch's results no more", "stop", is_gone=True
            )
        async with told(self._sdk, self._account, _BATCH_SECONDS):
            lines = await self._client.messages.batches.results(provider_batch)
        try:
            # Not within one timeout: the caller stores each before it takes the next.
            while True:
                async with told(self._sdk, self._account, _BATCH_SECONDS):
                    line = await anext(lines, None)
                if line is None:
                    break
                told_line = line.to_dict(mode="json")
                yield line.custom_id[_TAG + 1 :], self._result(told_line["result"])
        except json.JSONDecodeError as error:
            raise ProviderError("anthropic's results break off amid a line", "retry") from error
        finally:
            await lines.close()

    def _result(self, result: Any) -> Answer | ProviderError:
        kind = result["type"]
        if kind == "succeeded":
            try:
                with understood(result, self._account):
                    return _answer(result["message"], self.model, Limits())
            except ProviderError as error:
                return error
        if kind == "errored":
            body = result["error"]
            status = _STATUSES.get(str(refusal_of(0, body).type), 500)
            return error_of(refusal_of(status, body), self._account, raw=body)
        return ProviderError(f"anthropic's batch has {kind} this call", "retry", raw=result)

    async def close(self) -> None:
        """See ``Provider``."""
        await self._client.close()

    def _params(self, ask: Ask) -> dict[str, Any]:
        config: dict[str, Any] = {"format": {"type": "json_schema", "schema": REPLY_SCHEMA}}
        if self._effort:
            config["effort"] = self._effort
        return {
            "model": self.model,
            "system": [
                {"type": "text", "text": ask.system, "cache_control": {"type": "ephemeral"}}
            ],
            "messages": [{"role": "user", "content": ask.prompt}],
            "output_config": config,
        }


def _tag(batch: str) -> str:
    """A batch's own id in 16 of the 64 characters that a custom id may have."""
    return hashlib.sha256(batch.encode()).hexdigest()[:_TAG]


def _answer(body: dict[str, Any], model: str, limits: Limits) -> Answer:
    blocks = body.get("content") or []
    texts = [block["text"] for block in blocks if block.get("type") == "text"]
    return Answer(
        raw=body,
        text="".join(texts) if texts else None,
        # A refusal comes as a 200, often with nothing in it.
        end=_ENDS.get(str(body.get("stop_reason")), "complete"),
        usage=_usage(body.get("usage")),
        model=str(body.get("model") or model),
        limits=limits,
    )


def _usage(usage: Any) -> Usage | None:
    if not isinstance(usage, Mapping):
        return None
    cached = usage.get("cache_read_input_tokens") or 0
    written = usage.get("cache_creation_input_tokens") or 0
    # ``input_tokens`` leaves the cache out.
    return Usage(
        int(usage.get("input_tokens") or 0) + cached + written,
        int(usage.get("output_tokens") or 0),
        cached,
        written,
    )
