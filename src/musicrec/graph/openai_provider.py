"""OpenAI's Responses and Batches, by its own SDK (3.54), and servers that speak as it does.

A call is ``responses.create`` and not ``parse``, which loses the usage of a truncated reply, and
``store`` is false, or OpenAI would keep the reply for 30 days. Servers that have no ``/responses``
are asked by ``/chat/completions`` where ``api`` is ``chat``: said by the user, never guessed.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import AsyncIterator, Collection, Sequence
from typing import TYPE_CHECKING, Any, Literal

from musicrec.graph import openai_wire
from musicrec.graph.failures import Account, body_of, error_of, refusal_of, told, understood
from musicrec.graph.headers import openai_limits
from musicrec.graph.provider import Answer, Ask, BatchState, Limits, Price, ProviderError
from musicrec.graph.reply_schema import REPLY_SCHEMA
from musicrec.graph.summary import estimate_tokens

if TYPE_CHECKING:
    from openai import AsyncOpenAI

Api = Literal["responses", "chat"]

_CONNECT_SECONDS = 10.0
_COUNT_SECONDS = 30.0
_BATCH_SECONDS = 600.0
_DAY = 86_400

#: How far the provider's clock may be from ours.
_SKEW_SECONDS = 300.0

#: The key of a batch's metadata that holds our own id of it.
_OURS = "musicrec_batch"


class OpenAIProvider:
    """Asks one model of OpenAI's or of a server like it.

    Args:
        key: of the API; read from the environment by ``provider_of``.
        base_url: ends in ``/v1`` as a rule; None is OpenAI's own.
        api: which endpoint is asked.
        effort: of reasoning; None leaves it to the model, and for models that know none.
    """

    name = "openai"

    def __init__(
        self,
        model: str,
        key: str,
        *,
        base_url: str | None = None,
        api: Api = "responses",
        effort: str | None = "low",
        price: Price | None = None,
    ) -> None:
        self.model = model
        self.price = price
        self._api = api
        self._effort = effort
        self._account = Account(self.name, model, "OPENAI_API_KEY", key)
        self._sdk = importlib.import_module("openai")
        self._client: AsyncOpenAI = self._sdk.AsyncOpenAI(
            api_key=key, base_url=base_url, max_retries=0
        )

    async def ask(self, ask: Ask, *, timeout_seconds: float) -> Answer:
        """See ``Provider``."""
        timeout = self._sdk.Timeout(timeout_seconds, connect=min(_CONNECT_SECONDS, timeout_seconds))
        is_chat = self._api == "chat"
        create: Any = (
            self._client.chat.completions.with_raw_response.create
            if is_chat
            else self._client.responses.with_raw_response.create
        )
        async with told(self._sdk, self._account, timeout_seconds):
            response = await create(**self._params(ask), timeout=timeout)
            text = response.http_response.text
        answer = self._read(body_of(text, self._account), openai_limits(response.headers))
        if isinstance(answer, ProviderError):
            raise answer
        return answer

    async def count_tokens(self, ask: Ask) -> int:
        """By ``/v1/responses/input_tokens``; with ``api=chat`` an estimate, for want of one."""
        if self._api == "chat":
            # Some servers read the schema, some only obey it: rather too many than too few.
            texts = (ask.system, ask.prompt, json.dumps(REPLY_SCHEMA))
            return sum(estimate_tokens(text) for text in texts)
        params = self._params(ask)
        counted = {
            k: params[k]
            for k in ("model", "instructions", "input", "text", "reasoning")
            if k in params
        }
        async with told(self._sdk, self._account, _COUNT_SECONDS):
            response = await self._client.responses.input_tokens.with_raw_response.count(**counted)
            text = response.http_response.text
        return int(body_of(text, self._account)["input_tokens"])

    async def submit(self, batch: str, asks: Sequence[tuple[str, Ask]]) -> str:
        """See ``BatchProvider``; the summaries' file is gone from OpenAI after three days."""
        endpoint: Any = f"/v1/{'chat/completions' if self._api == 'chat' else 'responses'}"
        lines = [
            json.dumps(
                {"custom_id": id_, "method": "POST", "url": endpoint, "body": self._params(ask)}
            )
            for id_, ask in asks
        ]
        try:
            async with told(self._sdk, self._account, _BATCH_SECONDS):
                uploaded = await self._client.files.create(
                    file=("batch.jsonl", "\n".join(lines).encode()),
                    purpose="batch",
                    expires_after={"anchor": "created_at", "seconds": 3 * _DAY},
                )
        except ProviderError as error:
            error.may_be_billed = False  # a file alone is no work
            raise
        async with told(self._sdk, self._account, _BATCH_SECONDS):
            created = await self._client.batches.create(
                completion_window="24h",
                endpoint=endpoint,
                input_file_id=uploaded.id,
                metadata={_OURS: batch},
                output_expires_after={"anchor": "created_at", "seconds": 7 * _DAY},
            )
        return created.id

    async def find(self, batch: str, since: float, *, known: Collection[str] = ()) -> str | None:
        """See ``BatchProvider``; by the batch's metadata."""
        async with told(self._sdk, self._account, _BATCH_SECONDS):
            async for listed in self._client.batches.list(limit=100):
                if listed.created_at < since - _SKEW_SECONDS:
                    break
                if (listed.metadata or {}).get(_OURS) == batch:
                    return listed.id
        return None

    async def poll(self, provider_batch: str) -> BatchState:
        """See ``BatchProvider``."""
        async with told(self._sdk, self._account, _COUNT_SECONDS):
            found = await self._client.batches.retrieve(provider_batch)
        counts = found.request_counts
        has_ended = found.status in ("completed", "failed", "expired", "cancelled")
        if counts is None:
            return BatchState(has_ended, 0, 0)
        return BatchState(has_ended, counts.completed, counts.failed)

    async def results(
        self, provider_batch: str
    ) -> AsyncIterator[tuple[str, Answer | ProviderError]]:
        """See ``BatchProvider``; what succeeded stands in one file, what failed in another.

        Raises:
            ProviderError: also where the batch as a whole was refused.
        """
        async with told(self._sdk, self._account, _COUNT_SECONDS):
            found = await self._client.batches.retrieve(provider_batch)
        files = [file for file in (found.output_file_id, found.error_file_id) if file]
        if not files and found.status != "completed":
            raise openai_wire.batch_error(found.to_dict(mode="json"), self._account)
        for file in files:
            async for line in self._lines(file):
                yield str(line["custom_id"]), self._result(line)

    async def _lines(self, file: str) -> AsyncIterator[dict[str, Any]]:
        async with told(self._sdk, self._account, _BATCH_SECONDS):
            content = await self._client.files.content(file)
        # By bytes: a text's own line breaks include U+2028, which JSON leaves as it is.
        for line in content.content.split(b"\n"):
            if line.strip():
                yield body_of(line.decode(), self._account)

    def _result(self, line: dict[str, Any]) -> Answer | ProviderError:
        response, error = line.get("response"), line.get("error")
        if not response:
            code = (error or {}).get("code")
            then: Literal["retry", "skip"] = "retry" if code == "batch_expired" else "skip"
            said = self._account.hide(f"{code}: {(error or {}).get('message')}")
            return ProviderError(f"openai's batch did not make this call: {said}", then, raw=line)
        if response["status_code"] != 200:
            refusal = refusal_of(response["status_code"], response["body"])
            return error_of(refusal, self._account, raw=response["body"])
        return self._read(response["body"], Limits())

    async def close(self) -> None:
        """See ``Provider``."""
        await self._client.close()

    def _read(self, body: dict[str, Any], limits: Limits) -> Answer | ProviderError:
        read = openai_wire.chat_answer if self._api == "chat" else openai_wire.response_answer
        try:
            with understood(body, self._account):
                return read(body, self._account, limits)
        except ProviderError as error:
            return error

    def _params(self, ask: Ask) -> dict[str, Any]:
        if self._api == "chat":
            return openai_wire.chat_params(ask, self.model, self._effort)
        # The same for all users, so that the same cache is asked.
        cache = f"musicrec-{hashlib.sha256(ask.system.encode()).hexdigest()[:16]}"
        return openai_wire.response_params(ask, self.model, self._effort, cache)
