"""The batch endpoints of the test's LLM server: Anthropic's Message Batches, OpenAI's batches.

A batch's work is done when it is made, and shown once ``Script.batch_seconds`` have passed. Each
request in it may meet a fault: those of the reply, ``expired``, and any other as ``server_error``.
The fault ``reset`` at a creation makes the batch and cuts the connection.
"""

from __future__ import annotations

import json
import random
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from aiohttp import web

from llm_tongues import CHAT, MESSAGES, RESPONSES, Tongue

if TYPE_CHECKING:
    from llm_server import Server

IN_REPLY = ("broken_reply", "truncated", "refused", "wrong_ids")


def cut(request: web.Request) -> web.StreamResponse:
    """Reset the connection; what is returned reaches nobody."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


@dataclass
class Batch:
    """``lines`` are what became of each request, in an order of its own."""

    id: str
    created_at: float
    ends_at: float
    lines: list[dict[str, Any]]
    failed: list[dict[str, Any]] = field(default_factory=list)
    metadata: dict[str, str] | None = None
    input_file_id: str = ""
    endpoint: str = ""

    @property
    def has_ended(self) -> bool:
        return time.time() >= self.ends_at


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()


class Batches:
    """Handlers, and what they keep."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._batches: dict[str, Batch] = {}
        self._files: dict[str, bytes] = {}

    def add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_post("/v1/messages/batches", self._create_messages)
        router.add_get("/v1/messages/batches", self._list_messages)
        router.add_get("/v1/messages/batches/{id}", self._show_messages)
        router.add_get("/v1/messages/batches/{id}/results", self._message_results)
        router.add_post("/v1/files", self._upload)
        router.add_get("/v1/files/{id}/content", self._content)
        router.add_post("/v1/batches", self._create)
        router.add_get("/v1/batches", self._list)
        router.add_get("/v1/batches/{id}", self._show)

    def _made(self, prefix: str, lines: list[dict[str, Any]], **others: Any) -> Batch:
        now = time.time()
        random.Random(len(self._batches)).shuffle(lines)
        ends = now + self._server.script.batch_seconds
        batch = Batch(f"{prefix}_{uuid4().hex[:20]}", now, ends, lines, **others)
        self._batches[batch.id] = batch
        return batch

    def _next_is(self, *faults: str) -> str | None:
        coming = self._server.next_faults
        return coming.popleft() if coming and coming[0] in faults else None

    def _found(self, request: web.Request, tongue: Tongue) -> Batch:
        batch = self._batches.get(request.match_info["id"])
        if batch is None:
            _, body = tongue.error("not_found", f"no batch {request.match_info['id']}")
            raise web.HTTPNotFound(text=json.dumps(body), content_type="application/json")
        return batch

    def _page(self, cursor: str | None, limit: int) -> tuple[list[Batch], bool]:
        newest = sorted(self._batches.values(), key=lambda batch: -batch.created_at)
        ids = [batch.id for batch in newest]
        start = ids.index(cursor) + 1 if cursor else 0
        return newest[start : start + limit], len(newest) > start + limit

    # Anthropic's

    async def _create_messages(self, request: web.Request) -> web.StreamResponse:
        server = self._server
        body = await server.opened(request, MESSAGES)
        ids = [one["custom_id"] for one in body["requests"]]
        if len(set(ids)) < len(ids) or any(not 1 <= len(id_) <= 64 for id_ in ids):
            _, error = MESSAGES.error("bad_request", "custom_id: unique, 1 to 64 characters")
            return web.json_response(error, status=400)
        if fault := self._next_is("spend_limit", "rate_limit"):
            status, error = MESSAGES.error(fault, f"scripted {fault}")
            return web.json_response(error, status=status)
        is_lost = self._next_is("reset")
        lines = [self._message_line(one) for one in body["requests"]]
        shown = self._messages(request, self._made("msgbatch", lines))
        return cut(request) if is_lost else web.json_response(shown)

    def _message_line(self, one: dict[str, Any]) -> dict[str, Any]:
        fault, result = self._server.fault(), {}
        problem = MESSAGES.problem(one["params"])
        if problem or (fault not in (None, "expired", *IN_REPLY)):
            kind = "bad_request" if problem else "server_error"
            error = MESSAGES.error(kind, problem or f"scripted {fault}")[1]
            result = {"type": "errored", "error": error}
        elif fault == "expired":
            result = {"type": "expired"}
        else:
            message = self._server.answer(MESSAGES, one["params"], fault)
            result = {"type": "succeeded", "message": message}
        return {"custom_id": one["custom_id"], "result": result}

    def _messages(self, request: web.Request, batch: Batch) -> dict[str, Any]:
        kinds = [line["result"]["type"] for line in batch.lines]
        names = ("succeeded", "errored", "canceled", "expired")
        counts = {name: kinds.count(name) if batch.has_ended else 0 for name in names}
        counts["processing"] = 0 if batch.has_ended else len(kinds)
        results = f"{request.url.origin()}/v1/messages/batches/{batch.id}/results"
        return {
            "id": batch.id,
            "type": "message_batch",
            "processing_status": "ended" if batch.has_ended else "in_progress",
            "request_counts": counts,
            "created_at": _iso(batch.created_at),
            "expires_at": _iso(batch.created_at + timedelta(days=1).total_seconds()),
            "ended_at": _iso(batch.ends_at) if batch.has_ended else None,
            "archived_at": None,
            "cancel_initiated_at": None,
            "results_url": results if batch.has_ended else None,
        }

    async def _list_messages(self, request: web.Request) -> web.Response:
        await self._server.opened(request, MESSAGES)
        batches, has_more = self._page(
            request.query.get("after_id"), int(request.query.get("limit", 20))
        )
        return web.json_response(
            {
                "data": [self._messages(request, batch) for batch in batches],
                "has_more": has_more,
                "first_id": batches[0].id if batches else None,
                "last_id": batches[-1].id if batches else None,
            }
        )

    async def _show_messages(self, request: web.Request) -> web.Response:
        await self._server.opened(request, MESSAGES)
        return web.json_response(self._messages(request, self._found(request, MESSAGES)))

    async def _message_results(self, request: web.Request) -> web.Response:
        await self._server.opened(request, MESSAGES)
        return _jsonl(self._found(request, MESSAGES).lines)

    # OpenAI's

    async def _upload(self, request: web.Request) -> web.Response:
        given = request.headers.get("Authorization", "")
        if given != f"Bearer {self._server.script.key}":
            return web.json_response(RESPONSES.error("unauthorized", given)[1], status=401)
        form = await request.post()
        content = form["file"].file.read()
        if form["purpose"] != "batch":
            return web.json_response(RESPONSES.error("bad_request", "purpose")[1], status=400)
        text = content.decode()
        self._server.problems += [
            f"a file holds {secret!r}" for secret in self._server.script.forbidden if secret in text
        ]
        return web.json_response(self._kept(content))

    def _kept(self, content: bytes) -> dict[str, Any]:
        id_ = f"file-{uuid4().hex[:20]}"
        self._files[id_] = content
        now = int(time.time())
        return {
            "id": id_,
            "object": "file",
            "bytes": len(content),
            "created_at": now,
            "filename": "batch.jsonl",
            "purpose": "batch",
            "status": "processed",
        }

    async def _content(self, request: web.Request) -> web.Response:
        await self._server.opened(request, RESPONSES)
        content = self._files.get(request.match_info["id"])
        if content is None:
            return web.json_response(RESPONSES.error("not_found", "no such file")[1], status=404)
        return web.Response(body=content, content_type="application/octet-stream")

    async def _create(self, request: web.Request) -> web.StreamResponse:
        server = self._server
        body = await server.opened(request, RESPONSES)
        tongue = {"/v1/responses": RESPONSES, "/v1/chat/completions": CHAT}[body["endpoint"]]
        if fault := self._next_is("spend_limit", "rate_limit"):
            status, error = RESPONSES.error(fault, f"scripted {fault}")
            return web.json_response(error, status=status)
        is_lost = self._next_is("reset")
        requests = [json.loads(row) for row in self._files[body["input_file_id"]].splitlines()]
        lines, failed = [], []
        for one in requests:
            line = self._line(one, tongue)
            response = line["response"]
            is_good = response is not None and response["status_code"] == 200
            (lines if is_good else failed).append(line)
        batch = self._made(
            "batch",
            lines,
            failed=failed,
            metadata=body.get("metadata"),
            input_file_id=body["input_file_id"],
            endpoint=body["endpoint"],
        )
        return cut(request) if is_lost else web.json_response(self._told(batch))

    def _line(self, one: dict[str, Any], tongue: Tongue) -> dict[str, Any]:
        fault = self._server.fault()
        line: dict[str, Any] = {
            "id": f"batch_req_{uuid4().hex[:20]}",
            "custom_id": one["custom_id"],
            "response": None,
            "error": None,
        }
        if fault == "expired":
            line["error"] = {
                "code": "batch_expired",
                "message": "This request was not executed before the completion window.",
            }
            return line
        problem = tongue.problem(one["body"])
        if problem or fault not in (None, *IN_REPLY):
            kind = "bad_request" if problem else "server_error"
            status, body = tongue.error(kind, problem or f"scripted {fault}")
        else:
            status, body = 200, self._server.answer(tongue, one["body"], fault)
        line["response"] = {"status_code": status, "request_id": uuid4().hex, "body": body}
        return line

    def _told(self, batch: Batch) -> dict[str, Any]:
        done, failed = len(batch.lines), len(batch.failed)
        ended = batch.has_ended
        if ended:
            for name, lines in (("output", batch.lines), ("error", batch.failed)):
                if lines:
                    self._files.setdefault(f"file-{batch.id}-{name}", _jsonl(lines).body)
        return {
            "id": batch.id,
            "object": "batch",
            "endpoint": batch.endpoint,
            "errors": None,
            "input_file_id": batch.input_file_id,
            "completion_window": "24h",
            "status": "completed" if ended else "in_progress",
            "output_file_id": f"file-{batch.id}-output" if ended and done else None,
            "error_file_id": f"file-{batch.id}-error" if ended and failed else None,
            "created_at": int(batch.created_at),
            "completed_at": int(batch.ends_at) if ended else None,
            "request_counts": {
                "total": done + failed,
                "completed": done if ended else 0,
                "failed": failed if ended else 0,
            },
            "metadata": batch.metadata,
        }

    async def _list(self, request: web.Request) -> web.Response:
        await self._server.opened(request, RESPONSES)
        batches, has_more = self._page(
            request.query.get("after"), int(request.query.get("limit", 20))
        )
        shown = [self._told(batch) for batch in batches]
        return web.json_response({"object": "list", "data": shown, "has_more": has_more})

    async def _show(self, request: web.Request) -> web.Response:
        await self._server.opened(request, RESPONSES)
        return web.json_response(self._told(self._found(request, RESPONSES)))


def _jsonl(lines: list[dict[str, Any]]) -> web.Response:
    # Unescaped, so that a title's U+2028 stands in a line as it may.
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    return web.Response(body=text.encode(), content_type="application/x-jsonl")
