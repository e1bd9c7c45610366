"""What every request passes, whatever it asks: who it is, how much it sends, how it ended.

An ASGI layer of its own, for nothing it does needs the body or a model of it. Its log line tells of
a request what it asked and how it went: no body, no path (which may hold an id), no address, no
key.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from fastapi import HTTPException, Response
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from musicrec.serving.exchange import refusal
from musicrec.serving.measures import Measures
from musicrec.serving.security import API_KEY, OPEN_PATHS, Keys, RateLimit

#: In an ASGI scope, a dict: what a route wants to be told of its answer in the log.
SAID = "musicrec"

_LOG = logging.getLogger("musicrec.requests")


@dataclass(frozen=True, slots=True)
class Rules:
    """What the entrance lets through.

    Attributes:
        keys: of callers.
        rate_limit: None for none.
        max_body_bytes: of one request.
        logs_requests: whether each leaves a line in the log.
    """

    keys: Keys = field(default_factory=Keys)
    rate_limit: RateLimit | None = None
    max_body_bytes: int = 2**20
    logs_requests: bool = False


class Entrance:
    """Lets requests in, and answers for what goes wrong behind it.

    Args:
        app: what is behind it.
        rules: what it lets through.
        measures: counts and times requests.
    """

    def __init__(self, app: ASGIApp, rules: Rules, measures: Measures) -> None:
        self._app = app
        self._rules = rules
        self._measures = measures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = perf_counter()
        status = 0
        said: dict[str, Any] = {}
        scope[SAID] = said

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            refused = await self._refused(scope)
            if refused is not None:
                await refused(scope, receive, noted)
            else:
                await self._app(scope, self._bounded(receive), noted)
        except ClientDisconnect:  # in the midst of its body: nobody is there to be answered
            pass
        except Exception as error:
            answer = _failed(error, said)
            if status == 0:
                await answer(scope, receive, noted)
        finally:  # a caller that has gone is counted, too
            self._note(scope, status, perf_counter() - start, said)

    async def _refused(self, scope: Scope) -> Response | None:
        """The answer to somebody who is not let in."""
        rules = self._rules
        if scope["path"] in OPEN_PATHS:
            return None
        caller = rules.keys.caller(scope)
        if rules.rate_limit is not None:
            who = caller or f"at {(scope['client'] or ('a socket',))[0]}"
            wait = await rules.rate_limit.seconds_to_wait(who)
            if wait:
                why = f"too many requests within a minute; come again in {wait} s"
                return refusal(429, why, {"Retry-After": str(wait)})
        if rules.keys and caller is None:
            why = f"send a key of {API_KEY}, as Authorization: Bearer KEY or X-API-Key: KEY"
            return refusal(401, why, {"WWW-Authenticate": "Bearer"})
        length = next((v for k, v in scope["headers"] if k == b"content-length"), b"0")
        if int(length) > rules.max_body_bytes:
            # The rest of the body is not read, so the connection cannot go on.
            return refusal(413, self._too_much(), {"Connection": "close"})
        return None

    def _bounded(self, receive: Receive) -> Receive:
        """``receive`` for a body that does not say how long it is, or lies."""
        received = 0

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._rules.max_body_bytes:
                raise HTTPException(413, self._too_much(), {"Connection": "close"})
            return message

        return bounded

    def _too_much(self) -> str:
        return f"the body is larger than {self._rules.max_body_bytes} bytes"

    def _note(self, scope: Scope, status: int, seconds: float, said: dict[str, Any]) -> None:
        route = getattr(scope.get("route"), "path", "none")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._measures.request(route, method, status, seconds)
        if self._rules.logs_requests:
            facts = {"route": route, "method": method, "status": status}
            _LOG.info("request", extra={"facts": {**facts, "ms": round(seconds * 1000, 2), **said}})


_METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"})


def _failed(error: Exception, said: dict[str, Any]) -> Response:
    """A bug, told to the log under a name that the caller is given."""
    name = secrets.token_hex(6)
    said["failure"] = name
    _LOG.error("failed", exc_info=error, extra={"facts": {"failure": name}})
    return refusal(500, f"this failed; the server's log says where, under {name}")
