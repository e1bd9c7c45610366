"""Requests and answers of OpenAI's two endpoints, as plain JSON: one form for calls and batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from musicrec.graph.failures import Account
from musicrec.graph.provider import Answer, Ask, Limits, ProviderError, Then, Usage
from musicrec.graph.reply_schema import REPLY_SCHEMA

_NAME = "interest_graph"


def response_params(ask: Ask, model: str, effort: str | None, cache_key: str) -> dict[str, Any]:
    """The body of ``/v1/responses``."""
    form = {
        "type": "json_schema",
        "name": _NAME,
        "schema": REPLY_SCHEMA,
        "strict": True,
    }
    return {
        "model": model,
        "instructions": ask.system,
        "input": ask.prompt,
        "max_output_tokens": ask.max_tokens,
        "text": {"format": form},
        "store": False,
        "prompt_cache_key": cache_key,
        **({"reasoning": {"effort": effort}} if effort else {}),
    }


def chat_params(ask: Ask, model: str, effort: str | None) -> dict[str, Any]:
    """The body of ``/v1/chat/completions``, with no more than what most servers know."""
    schema = {"name": _NAME, "schema": REPLY_SCHEMA, "strict": True}
    return {
        "model": model,
        "messages": [
            {"role": "system", "content": ask.system},
            {"role": "user", "content": ask.prompt},
        ],
        "max_tokens": ask.max_tokens,
        "response_format": {"type": "json_schema", "json_schema": schema},
        **({"reasoning_effort": effort} if effort else {}),
    }


def response_answer(
    body: dict[str, Any], account: Account, limits: Limits
) -> Answer | ProviderError:
    """Read a 200 of ``/v1/responses``; one whose ``status`` is ``failed`` is an error."""
    status = body.get("status")
    if status in ("failed", "cancelled"):
        error = body.get("error") or {}
        # ``invalid_prompt`` and the policies are about this prompt; the others pass.
        passes = error.get("code") in ("server_error", "rate_limit_exceeded", None)
        said = account.hide(f"{error.get('code')}: {error.get('message')}")
        return ProviderError(
            f"openai's response has {status}: {said}",
            "retry" if passes else "skip",
            is_rate_limit=error.get("code") == "rate_limit_exceeded",
            may_be_billed=body.get("usage") is not None,
            raw=body,
        )
    parts = [
        part
        for item in body.get("output") or []
        if item.get("type") == "message"
        for part in item.get("content") or []
    ]
    texts = [part["text"] for part in parts if part.get("type") == "output_text"]
    reason = (body.get("incomplete_details") or {}).get("reason")
    end: Literal["complete", "truncated", "refused"] = "complete"
    if reason == "content_filter" or any(part.get("type") == "refusal" for part in parts):
        end = "refused"
    elif status != "completed":
        end = "truncated"
    usage = body.get("usage")
    return _answer(body, account, limits, texts, end, usage, ("input", "output"))


def chat_answer(body: dict[str, Any], account: Account, limits: Limits) -> Answer | ProviderError:
    """Read a 200 of ``/v1/chat/completions``."""
    choices = body.get("choices") or [{}]
    message = choices[0].get("message") or {}
    reason = choices[0].get("finish_reason")
    end: Literal["complete", "truncated", "refused"] = "complete"
    if message.get("refusal") or reason == "content_filter":
        end = "refused"
    elif reason == "length":
        end = "truncated"
    texts = [message["content"]] if message.get("content") else []
    usage = body.get("usage")
    return _answer(body, account, limits, texts, end, usage, ("prompt", "completion"))


def batch_error(batch: dict[str, Any], account: Account) -> ProviderError:
    """Why a batch as a whole came to nothing; ``batch`` as OpenAI shows it."""
    status = batch["status"]
    errors = (batch.get("errors") or {}).get("data") or [{}]
    code = errors[0].get("code")
    # Too many tokens are waiting in other batches: later there is room.
    passes = status in ("expired", "cancelled") or code == "token_limit_exceeded"
    then: Then = "retry" if passes else "stop"
    said = account.hide(f"{code}: {errors[0].get('message')}") if code else "without a reason"
    return ProviderError(
        f"openai's batch {batch['id']} has {status}: {said}",
        then,
        is_rate_limit=code == "token_limit_exceeded",
        raw=batch,
    )


def _answer(
    body: dict[str, Any],
    account: Account,
    limits: Limits,
    texts: list[str],
    end: Literal["complete", "truncated", "refused"],
    usage: Any,
    names: tuple[str, str],
) -> Answer:
    read = written = None
    if isinstance(usage, Mapping):
        read, written = (usage.get(f"{name}_tokens") for name in names)
    cached = ((usage or {}).get(f"{names[0]}_tokens_details") or {}).get("cached_tokens") or 0
    return Answer(
        raw=body,
        text="".join(texts) if texts else None,
        end=end,
        usage=None if read is None or written is None else Usage(read, written, cached),
        model=str(body.get("model") or account.model),
        limits=limits,
    )
