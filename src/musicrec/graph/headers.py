"""What providers say in headers of how much may be asked, and when again.

Sources: the headers' names and forms as the SDKs and the providers' documentation give them;
Anthropic's resets are moments, OpenAI's are durations such as ``6m0s`` and ``20ms``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from musicrec.graph.provider import Limits

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait; None where it does not say or cannot be read."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    seconds = _number(value)
    if seconds is not None or value is None:
        return seconds
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (moment - _now(headers)).total_seconds())


def anthropic_limits(headers: Mapping[str, str]) -> Limits:
    """Of ``anthropic-ratelimit-*``."""

    def of(kind: str) -> tuple[int, int, float] | None:
        names = [f"anthropic-ratelimit-{kind}-{what}" for what in ("limit", "remaining", "reset")]
        limit, remaining = (_number(headers.get(name)) for name in names[:2])
        if limit is None or remaining is None:
            return None
        try:
            moment = datetime.fromisoformat(headers.get(names[2], ""))
        except ValueError:
            return None
        # Against the server's own clock, which ours need not agree with.
        return int(limit), int(remaining), max(0.0, (moment - _now(headers)).total_seconds())

    return Limits(of("requests"), of("input-tokens"), of("output-tokens"))


def openai_limits(headers: Mapping[str, str]) -> Limits:
    """Of ``x-ratelimit-*``; its tokens, of input and output together, stand as input tokens."""

    def of(kind: str) -> tuple[int, int, float] | None:
        limit, remaining = (
            _number(headers.get(f"x-ratelimit-{what}-{kind}")) for what in ("limit", "remaining")
        )
        seconds = _duration(headers.get(f"x-ratelimit-reset-{kind}"))
        if limit is None or remaining is None or seconds is None:
            return None
        return int(limit), int(remaining), seconds

    return Limits(of("requests"), of("tokens"))


def _number(value: str | None) -> float | None:
    try:
        number = float(value) if value is not None else None
    except ValueError:
        return None
    return number if number is not None and 0 <= number < float("inf") else None


def _duration(value: str | None) -> float | None:
    if value is None:
        return None
    parts = _DURATION.findall(value)
    if parts and "".join(number + unit for number, unit in parts) == value:
        return sum(float(number) * _SECONDS[unit] for number, unit in parts)
    return _number(value)


def _now(headers: Mapping[str, str]) -> datetime:
    try:
        return parsedate_to_datetime(headers["date"])
    except (KeyError, ValueError):
        return datetime.now(UTC)
