"""A server that speaks Anthropic's and OpenAI's wire protocols over a real socket, with faults.

``serving()`` runs it in a thread of the test, ``python tests/llm_server.py`` in a process of its
own: the first line says where it listens, ``GET /_seen`` what came, ``POST /_next`` takes a list of
faults for the next calls, ``POST /_script`` new values of ``Script``. Anthropic's base URL is the
server's, OpenAI's ends in ``/v1``.

Faults: ``rate_limit`` (with Retry-After), ``rate_limit_silent`` (without), ``spend_limit``,
``no_credit``, ``unauthorized``, ``not_found``, ``bad_request``, ``too_large``, ``server_error``,
``overloaded``: errors at once; ``reset``: the work is done, billed, and the connection is cut;
``hang``; ``trickle``: a byte each 0.2 s; ``broken_body``: 200 with half of its JSON;
``broken_reply``: a good body whose text is not JSON; ``truncated``; ``refused``; ``wrong_ids``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import hashlib
import json
import random
import threading
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

from aiohttp import web

from llm_batches import Batches, cut
from llm_replies import reply, spoken, tokens
from llm_tongues import CHAT, MESSAGES, RESPONSES, Bucket, End, Tongue

KEY = "test-key-51ab"
AT_ONCE = (
    *("rate_limit", "rate_limit_silent", "spend_limit", "no_credit", "unauthorized", "not_found"),
    *("bad_request", "too_large", "server_error", "overloaded"),
)
MIXED = (
    *("rate_limit", "rate_limit_silent", "overloaded", "server_error", "reset", "trickle"),
    *("broken_body", "broken_reply", "truncated", "refused", "wrong_ids"),
)
FAULTS = (*AT_ONCE, "hang", *MIXED[4:])


@dataclasses.dataclass
class Script:
    """How the server behaves.

    Attributes:
        fault_share: of calls that meet one of ``faults``, by chance with ``seed``.
        requests_per_minute, tokens_per_minute: None does not limit; tokens are those of the input.
        burst: calls that may come at once under the limit; a second's worth where it is None.
        retry_after: seconds, as the fault ``rate_limit`` says.
        batch_seconds: until a batch has ended.
        forbidden: texts that no request may hold, such as user ids.
    """

    latency_seconds: float = 0.0
    fault_share: float = 0.0
    faults: tuple[str, ...] = MIXED
    seed: int = 17
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    burst: float | None = None
    retry_after: float = 1.0
    batch_seconds: float = 0.0
    key: str = KEY
    forbidden: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Call:
    """One request for a graph: ``prompt`` is a hash of what the user said.

    ``fault`` is None where it went well, and ``limited`` where it came too soon.
    """

    tongue: str
    prompt: str
    fault: str | None
    at: float
    input_tokens: int


class Server:
    """The state and the handlers; ``url`` and ``openai_url`` once it is served."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.calls: list[Call] = []
        self.problems: list[str] = []
        self.next_faults: deque[str] = deque()
        self.max_in_flight = self._in_flight = 0
        self.url = self.openai_url = ""
        self._random = random.Random(script.seed)
        self._requests = self._tokens = None
        self.become(script)

    def become(self, script: Script) -> None:
        """Behave by another script from now on."""
        self.script = script
        rate, share = script.requests_per_minute, script.tokens_per_minute
        burst = script.burst or max(1.0, (rate or 0) / 60)
        self._requests = Bucket(rate, burst) if rate else None
        self._tokens = Bucket(share, share) if share else None

    def seen(self) -> dict[str, Any]:
        """What came so far, as ``GET /_seen`` tells it."""
        return {
            "calls": [dataclasses.asdict(call) for call in self.calls],
            "faults": Counter(call.fault or "none" for call in self.calls),
            "problems": self.problems,
            "max_in_flight": self.max_in_flight,
        }

    def fault(self) -> str | None:
        """The next call's fault, asked for or by chance."""
        if self.next_faults:
            return self.next_faults.popleft()
        if self._random.random() < self.script.fault_share:
            return self._random.choice(self.script.faults)
        return None

    async def opened(self, request: web.Request, tongue: Tongue) -> Any:
        """The request's JSON, once its key and its texts are found right."""
        text = await request.text()
        given = request.headers.get("Authorization", "")
        if given != f"Bearer {self.script.key}":
            # As OpenAI does: parts of the key stand in the message.
            masked = f"{given[7:12]}***{given[-4:]}"
            raise _refusal(tongue, "unauthorized", f"Incorrect API key provided: {masked}.")
        for secret in self.script.forbidden:
            if secret in text:
                self.problems.append(f"{request.path} holds {secret!r}")
        try:
            return json.loads(text) if text else {}
        except ValueError:
            raise _refusal(tongue, "bad_request", "the body is not JSON") from None

    def checked(self, body: Any, tongue: Tongue, *, counting: bool = False) -> None:
        """Refuse a body that the endpoint would not take."""
        if problem := tongue.problem(body, counting=counting):
            self.problems.append(problem)
            raise _refusal(tongue, "bad_request", problem)

    async def count(self, request: web.Request, tongue: Tongue) -> web.Response:
        body = await self.opened(request, tongue)
        self.checked(body, tongue, counting=True)
        count = {"input_tokens": spoken(body)[1]}
        return web.json_response(
            count if tongue is MESSAGES else {"object": "response.input_tokens", **count}
        )

    async def call(self, request: web.Request, tongue: Tongue) -> web.StreamResponse:
        body = await self.opened(request, tongue)
        self.checked(body, tongue)
        said, cost, _ = spoken(body)
        fault = self.fault()
        wait = self._wait(cost)
        prompt = hashlib.sha256(said.encode()).hexdigest()[:16]
        seen = "limited" if wait else fault
        self.calls.append(Call(tongue.name, prompt, seen, time.time(), cost))
        headers = tongue.limits(self._requests, self._tokens)
        if wait or fault in ("rate_limit", "rate_limit_silent"):
            if fault != "rate_limit_silent" or wait:
                headers["retry-after"] = f"{wait or self.script.retry_after:.3f}"
            status, error = tongue.error("rate_limit", "This request would exceed your rate limit.")
            return web.json_response(error, status=status, headers=headers)
        if fault in AT_ONCE:
            status, error = tongue.error(fault, f"This is the scripted fault {fault}.")
            return web.json_response(error, status=status, headers=headers)
        self._in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self._in_flight)
        try:
            await asyncio.sleep(3600 if fault == "hang" else self.script.latency_seconds)
            return await self._answered(request, tongue, body, fault, headers)
        finally:
            self._in_flight -= 1

    def answer(self, tongue: Tongue, body: Any, fault: str | None) -> dict[str, Any]:
        """The body of a 200, by the prompt's evidence and the fault."""
        said, read, limit = spoken(body)
        text = json.dumps(reply(said, wrong_ids=fault == "wrong_ids"), ensure_ascii=False)
        if fault == "broken_reply":
            text = "Here is the graph you asked for: {'nodes': [oops"
        ends: dict[str | None, End] = {"truncated": "truncated", "refused": "refused"}
        end = ends.get(fault, "complete")
        written = tokens(text)
        if end == "complete" and written > limit:
            end, written = "truncated", limit
        if end == "truncated":
            text = text[: len(text) // 2]
        if end == "refused":
            written = 1
        return tongue.answer(body["model"], text, end, read, written)

    def _wait(self, cost: int) -> float:
        waits = [self._requests.take(1) if self._requests else 0.0]
        if not waits[0] and self._tokens:
            waits.append(self._tokens.take(cost))
        return max(waits)

    async def _answered(
        self,
        request: web.Request,
        tongue: Tongue,
        body: Any,
        fault: str | None,
        headers: dict[str, str],
    ) -> web.StreamResponse:
        whole = json.dumps(self.answer(tongue, body, fault), ensure_ascii=False).encode()
        if fault == "reset":
            return cut(request)
        if fault == "broken_body":
            whole = whole[: len(whole) // 2]
        if fault != "trickle":
            return web.Response(body=whole, content_type="application/json", headers=headers)
        response = web.StreamResponse(headers=headers | {"content-length": str(len(whole))})
        response.content_type = "application/json"
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            for at in range(len(whole)):
                await response.write(whole[at : at + 1])
                await asyncio.sleep(0.2)
        return response

    def app(self) -> web.Application:
        app = web.Application(client_max_size=512 * 2**20)
        for path, count, tongue in (
            ("/v1/messages", "/v1/messages/count_tokens", MESSAGES),
            ("/v1/responses", "/v1/responses/input_tokens", RESPONSES),
            ("/v1/chat/completions", None, CHAT),
        ):
            app.router.add_post(path, partial(self.call, tongue=tongue))
            if count:
                app.router.add_post(count, partial(self.count, tongue=tongue))
        Batches(self).add_routes(app.router)
        app.router.add_get("/_seen", self._tell)
        app.router.add_post("/_next", self._take_faults)
        app.router.add_post("/_script", self._take_script)
        return app

    async def _tell(self, request: web.Request) -> web.Response:
        return web.json_response(self.seen())

    async def _take_faults(self, request: web.Request) -> web.Response:
        self.next_faults.extend(await request.json())
        return web.Response()

    async def _take_script(self, request: web.Request) -> web.Response:
        self.become(dataclasses.replace(self.script, **(await request.json())))
        return web.Response()


def _refusal(tongue: Tongue, kind: str, message: str) -> web.HTTPException:
    status, body = tongue.error(kind, message)
    failure = web.HTTPBadRequest(text=json.dumps(body), content_type="application/json")
    failure.set_status(status)
    return failure


@contextlib.asynccontextmanager
async def _listening(server: Server, port: int) -> AsyncIterator[None]:
    runner = web.AppRunner(
        server.app(), access_log=None, shutdown_timeout=0.1, handler_cancellation=True
    )
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, backlog=512)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    server.openai_url = f"{server.url}/v1"
    try:
        yield
    finally:
        await runner.cleanup()


@contextlib.contextmanager
def serving(script: Script | None = None) -> Iterator[Server]:
    """A server in a thread of this process."""
    server, loop = Server(script or Script()), asyncio.new_event_loop()
    ready, done = threading.Event(), asyncio.Event()

    async def run() -> None:
        async with _listening(server, 0):
            ready.set()
            await done.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()), daemon=True)
    thread.start()
    assert ready.wait(30), "the LLM server does not start"
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(30)
        loop.close()


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    for field in dataclasses.fields(Script):
        flag = "--" + field.name.replace("_", "-")
        if isinstance(field.default, tuple):
            parser.add_argument(flag, nargs="*", default=field.default)
        else:
            kind = type(field.default) if field.default is not None else float
            parser.add_argument(flag, type=kind, default=field.default)
    given = vars(parser.parse_args())
    server = Server(Script(**{f.name: given[f.name] for f in dataclasses.fields(Script)}))

    async def run() -> None:
        async with _listening(server, given["port"]):
            print(f"listening on {server.url}", flush=True)
            await asyncio.Event().wait()

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run())


if __name__ == "__main__":
    main()
