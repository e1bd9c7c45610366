"""How the two providers put answers, errors and limits on the wire; read by tests/llm_server.py."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import uuid4

from llm_replies import chat_problem, messages_problem, responses_problem

End = Literal["complete", "truncated", "refused"]


class Bucket:
    """A rate limit as both enforce it: refilled steadily, holding at most ``burst``."""

    def __init__(self, per_minute: float, burst: float) -> None:
        self.per_minute = per_minute
        self.burst = burst
        self._level, self._at = burst, time.monotonic()

    def level(self) -> float:
        now = time.monotonic()
        gained = (now - self._at) * self.per_minute / 60
        self._level, self._at = min(self.burst, self._level + gained), now
        return self._level

    def take(self, amount: float) -> float:
        """Take ``amount``, or say how many seconds until it is there; 0 where it was taken."""
        missing = min(amount, self.burst) - self.level()
        if missing > 0:
            return missing * 60 / self.per_minute
        self._level -= amount
        return 0.0

    def seconds_until_whole(self) -> float:
        return (self.burst - self.level()) * 60 / self.per_minute


@dataclass(frozen=True)
class Tongue:
    """The wire form of one endpoint.

    Attributes:
        problem: why a request would be refused.
        answer: (model, text, end, input tokens, output tokens) to a body.
        error: (kind of ``ERRORS``, message) to status and body.
        limits: requests' and tokens' buckets to headers.
    """

    name: str
    problem: Callable[..., str | None]
    answer: Callable[[str, str, End, int, int], dict[str, Any]]
    error: Callable[[str, str], tuple[int, dict[str, Any]]]
    limits: Callable[[Bucket | None, Bucket | None], dict[str, str]]


_ANTHROPIC_ERRORS: Mapping[str, tuple[int, str, str | None]] = {
    "bad_request": (400, "invalid_request_error", None),
    "unauthorized": (401, "authentication_error", None),
    "no_credit": (402, "billing_error", None),
    "not_found": (404, "not_found_error", None),
    "too_large": (413, "invalid_request_error", None),
    "rate_limit": (429, "rate_limit_error", None),
    "rate_limit_silent": (429, "rate_limit_error", None),
    "spend_limit": (429, "rate_limit_error", "enforced_spend_limit_reached"),
    "server_error": (500, "api_error", None),
    "overloaded": (529, "overloaded_error", None),
}
_OPENAI_ERRORS: Mapping[str, tuple[int, str, str | None]] = {
    "bad_request": (400, "invalid_request_error", None),
    "unauthorized": (401, "invalid_request_error", "invalid_api_key"),
    "no_credit": (429, "insufficient_quota", "insufficient_quota"),
    "not_found": (404, "invalid_request_error", "model_not_found"),
    "too_large": (400, "invalid_request_error", "context_length_exceeded"),
    "rate_limit": (429, "requests", "rate_limit_exceeded"),
    "rate_limit_silent": (429, "requests", "rate_limit_exceeded"),
    "spend_limit": (429, "insufficient_quota", "insufficient_quota"),
    "server_error": (500, "server_error", None),
    "overloaded": (503, "server_error", None),
}


def _anthropic_error(kind: str, message: str) -> tuple[int, dict[str, Any]]:
    status, type_, code = _ANTHROPIC_ERRORS[kind]
    error: dict[str, Any] = {"type": type_, "message": message}
    if code:
        error["details"] = {"error_code": code}
    return status, {"type": "error", "error": error, "request_id": f"req_{uuid4().hex[:20]}"}


def _openai_error(kind: str, message: str) -> tuple[int, dict[str, Any]]:
    status, type_, code = _OPENAI_ERRORS[kind]
    param = "input" if kind == "too_large" else None
    return status, {"error": {"message": message, "type": type_, "param": param, "code": code}}


def _message(model: str, text: str, end: End, read: int, written: int) -> dict[str, Any]:
    reasons = {"complete": "end_turn", "truncated": "max_tokens", "refused": "refusal"}
    return {
        "id": f"msg_{uuid4().hex[:20]}",
        "type": "message",
        "role": "assistant",
        "model": model,
        # As the real one: a refusal comes as a 200 with nothing in it.
        "content": [] if end == "refused" else [{"type": "text", "text": text}],
        "stop_reason": reasons[end],
        "stop_sequence": None,
        "stop_details": {"type": "refusal", "category": None} if end == "refused" else None,
        "usage": {
            "input_tokens": read,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": written,
            "service_tier": "standard",
        },
    }


def _response(model: str, text: str, end: End, read: int, written: int) -> dict[str, Any]:
    said = (
        {"type": "refusal", "refusal": "I cannot help with that."}
        if end == "refused"
        else {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    )
    truncated = end == "truncated"
    return {
        "id": f"resp_{uuid4().hex[:20]}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "incomplete" if truncated else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if truncated else None,
        "error": None,
        "model": model,
        "output": [
            {"id": f"rs_{uuid4().hex[:20]}", "type": "reasoning", "summary": []},
            {
                "id": f"msg_{uuid4().hex[:20]}",
                "type": "message",
                "role": "assistant",
                "status": "incomplete" if truncated else "completed",
                "content": [said],
            },
        ],
        "store": False,
        "usage": {
            "input_tokens": read,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": written,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": read + written,
        },
    }


def _completion(model: str, text: str, end: End, read: int, written: int) -> dict[str, Any]:
    refused = end == "refused"
    return {
        "id": f"chatcmpl-{uuid4().hex[:20]}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [
            {
                "index": 0,
                "finish_reason": "length" if end == "truncated" else "stop",
                "message": {
                    "role": "assistant",
                    "content": None if refused else text,
                    "refusal": "I cannot help with that." if refused else None,
                },
            }
        ],
        "usage": {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
        },
    }


def _anthropic_limits(requests: Bucket | None, tokens: Bucket | None) -> dict[str, str]:
    headers = {}
    for name, bucket in (("requests", requests), ("input-tokens", tokens)):
        if bucket is not None:
            whole = datetime.now(UTC) + timedelta(seconds=bucket.seconds_until_whole())
            headers |= {
                f"anthropic-ratelimit-{name}-limit": f"{bucket.per_minute:.0f}",
                f"anthropic-ratelimit-{name}-remaining": f"{math.floor(bucket.level())}",
                f"anthropic-ratelimit-{name}-reset": whole.strftime("%Y-%m-%dT%H:%M:%SZ"),
            }
    return headers


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    minutes, rest = divmod(seconds, 60)
    return f"{minutes:.0f}m{rest:.3f}s" if minutes else f"{rest:.3f}s"


def _openai_limits(requests: Bucket | None, tokens: Bucket | None) -> dict[str, str]:
    headers = {}
    for name, bucket in (("requests", requests), ("tokens", tokens)):
        if bucket is not None:
            headers |= {
                f"x-ratelimit-limit-{name}": f"{bucket.per_minute:.0f}",
                f"x-ratelimit-remaining-{name}": f"{math.floor(bucket.level())}",
                f"x-ratelimit-reset-{name}": _duration(bucket.seconds_until_whole()),
            }
    return headers


MESSAGES = Tongue("messages", messages_problem, _message, _anthropic_error, _anthropic_limits)
RESPONSES = Tongue("responses", responses_problem, _response, _openai_error, _openai_limits)
CHAT = Tongue("chat", chat_problem, _completion, _openai_error, _openai_limits)
