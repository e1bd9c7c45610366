"""What a provider's failure over HTTP means: what may help, how long to wait, who should pause.

Both SDKs name their exceptions alike and wrap the same HTTP client, so one reading does for both.
Neither is let retry: each would ask again after a spend limit, and after a timeout pay twice.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from musicrec.graph.headers import retry_after
from musicrec.graph.provider import ProviderError, Then

#: Codes and types that only a person can mend, whatever the status: most come as a 429.
_UNPAID = {
    "access_terminated",
    "account_deactivated",
    "billing_error",
    "billing_hard_limit_reached",
    "billing_not_active",
    "contract_spend_limit_reached",
    "enforced_spend_limit_reached",
    "insufficient_quota",
    "linked_organization_billing_unavailable",
    "linked_organization_spend_limit_reached",
    "organization_on_hold",
}

_LONGEST_MESSAGE = 200


@dataclass(frozen=True)
class Account:
    """Who is asked, and as whom; ``key`` never shows.

    Attributes:
        key_name: of the environment variable that holds the key.
    """

    provider: str
    model: str
    key_name: str
    key: str = field(repr=False)

    def hide(self, text: str) -> str:
        """``text`` in one line, capped, without the key and without what moves a terminal."""
        shown = "".join(c if c.isprintable() else " " for c in text.replace(self.key, "…"))
        line = " ".join(shown.split())
        return line if len(line) <= _LONGEST_MESSAGE else line[: _LONGEST_MESSAGE - 1] + "…"


@dataclass(frozen=True)
class Refusal:
    """An answer that is an error.

    Attributes:
        code: the provider's name for the cause, or ``type`` where it has none.
        param: the setting at fault, where OpenAI names it.
    """

    status: int
    code: str | None = None
    type: str | None = None
    message: str = ""
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def refusal_of(status: int, body: Any, headers: Mapping[str, str] | None = None) -> Refusal:
    """Read either provider's error body; one that is no JSON object has nothing but its text."""
    error = body.get("error", body) if isinstance(body, Mapping) else body
    if not isinstance(error, Mapping):
        return Refusal(status, message=str(body or ""), headers=headers or {})
    details = error.get("details")
    code = error.get("code") or (
        details.get("error_code") if isinstance(details, Mapping) else None
    )
    return Refusal(
        status,
        code=str(code) if code else None,
        type=str(error["type"]) if error.get("type") else None,
        message=str(error.get("message") or ""),
        param=str(error["param"]) if error.get("param") else None,
        headers=headers or {},
    )


def error_of(refusal: Refusal, account: Account, raw: Any = None) -> ProviderError:
    """The refusal as the job understands it.

    A 400 is about one user's prompt (``skip``), unless OpenAI names a setting that every call
    shares. Only 429 pauses everybody, and 503 or 529 where they say for how long.
    """
    then, way_out = _verdict(refusal, account)
    wait = retry_after(refusal.headers)
    # What the provider says of a key may hold the key, masked or not.
    about_key = refusal.status in (401, 403)
    said = "" if about_key else f": {account.hide(refusal.message)}" if refusal.message else ""
    code = refusal.code or refusal.type
    name = f" ({account.hide(code)})" if code else ""
    return ProviderError(
        f"{account.provider} answers {refusal.status}{name}{said}{way_out}",
        then,
        retry_after=wait,
        is_rate_limit=then == "retry"
        and (refusal.status == 429 or (refusal.status in (503, 529) and wait is not None)),
        may_be_billed=refusal.status in (408, 502, 504, 520, 524),  # a gateway's word only
        is_gone=refusal.status in (404, 410),
        raw=None if about_key else _shown(raw, account),
    )


def _verdict(refusal: Refusal, account: Account) -> tuple[Then, str]:
    status = refusal.status
    if status == 402 or refusal.code in _UNPAID or refusal.type in _UNPAID:
        return (
            "stop",
            f"; mend the account or its spend limit at {account.provider}, then run again",
        )
    if status in (401, 403):
        return "stop", f"; the key in {account.key_name} is not accepted for {account.model!r}"
    if status == 404:
        return "stop", f"; check llm.model ({account.model!r}) and llm.base_url"
    if status == 400 and refusal.param and not refusal.param.startswith(("input", "messages")):
        return "stop", f"; the setting {refusal.param!r} is the same in every call"
    if status in (400, 413, 422):
        return "skip", ""
    if status in (408, 409, 429) or (status >= 500 and status != 501):
        if refusal.headers.get("x-should-retry") == "false":
            return ("stop" if status == 429 else "skip"), "; it asks not to be asked again"
        return "retry", ""
    return "stop", "; check llm.base_url"


def _shown(raw: Any, account: Account) -> Any:
    text = json.dumps(raw, default=str)
    return json.loads(text.replace(account.key, "…")) if account.key in text else raw


@asynccontextmanager
async def told(sdk: ModuleType, account: Account, timeout_seconds: float) -> AsyncIterator[None]:
    """Run one call of an SDK; whatever it raises becomes a ``ProviderError``.

    The SDKs' own timeout is between two bytes, so a server that trickles would never reach it.
    """
    import httpx2

    unreached = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
    try:
        async with asyncio.timeout(timeout_seconds):
            yield
    except TimeoutError as error:
        raise _lost(account, f"gave no whole answer in {timeout_seconds:g} s") from error
    except sdk.APIStatusError as error:
        body = getattr(error, "body", None)
        refusal = refusal_of(error.status_code, body, error.response.headers)
        raise error_of(refusal, account, raw=body) from None
    except sdk.APIConnectionError as error:
        if isinstance(error.__cause__, unreached):
            reason = account.hide(f"{error.__cause__}" or type(error.__cause__).__name__)
            raise ProviderError(f"{account.provider} is not reached: {reason}", "retry") from None
        raise _lost(account, f"cut the call off: {type(error.__cause__).__name__}") from None
    except sdk.APIError.__bases__[0] as error:  # AnthropicError, OpenAIError: found before sending
        raise ProviderError(f"{account.provider}: {account.hide(str(error))}", "stop") from None
    except httpx2.HTTPError as error:  # while a body is read line by line
        raise _lost(account, f"cut the call off: {type(error).__name__}") from None


def _lost(account: Account, what: str) -> ProviderError:
    return ProviderError(f"{account.provider} {what}", "retry", may_be_billed=True)


@contextmanager
def understood(body: object, account: Account) -> Iterator[None]:
    """Read the parts of a 200; one of another shape is a ``ProviderError`` that keeps it."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ProviderError(
            f"{account.provider} answers 200 in an unknown shape ({type(error).__name__})",
            "skip",
            may_be_billed=True,
            raw=_shown(body, account),
        ) from error


def body_of(text: str, account: Account) -> dict[str, Any]:
    """The JSON object of a 200.

    Raises:
        ProviderError: it is broken or none: the SDKs would raise a bare ``JSONDecodeError``.
    """
    try:
        body = json.loads(text, parse_constant=str)  # NaN: Postgres takes no such JSON
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise ProviderError(
            f"{account.provider} answers 200 with what is not a JSON object "
            f"({len(text)} characters)",
            "retry",
            may_be_billed=True,
            raw={"text": text.replace(account.key, "…")},
        )
    return body
