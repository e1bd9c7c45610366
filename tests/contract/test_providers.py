"""One suite for all who write interest graphs, over a server that speaks the real protocols."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar, cast

import pytest

from llm_prompts import ask, summary
from llm_server import KEY, Script, Server
from musicrec.graph.local import Local
from musicrec.graph.provider import Answer, BatchProvider, Provider, ProviderError, Then
from musicrec.graph.providers import provider_of
from musicrec.graph.reading import graph_of

pytestmark = pytest.mark.slow

T = TypeVar("T")

OVER_HTTP = ("anthropic", "openai", "openai by chat")


def made(name: str, server: Server) -> Provider:
    """The provider of that name, asking the server."""
    if name == "local":
        return provider_of("local")
    if name == "anthropic":
        return provider_of("anthropic", base_url=server.url)
    api = "chat" if name == "openai by chat" else "responses"
    return provider_of("openai", base_url=server.openai_url, api=api)


def asked(
    name: str, server: Server, what: Callable[[Any], Coroutine[Any, Any, T]] | None = None
) -> Any:
    """What a fresh provider answers, or gives to ``what``; closed afterwards."""

    async def run() -> Any:
        provider = made(name, server)
        try:
            if what is None:
                return await provider.ask(ask(), timeout_seconds=20)
            return await what(provider)
        finally:
            await provider.close()

    return asyncio.run(run())


def refusal(name: str, server: Server, *faults: str, timeout_seconds: float = 20) -> ProviderError:
    """How a call fails that meets the fault."""
    server.next_faults.extend(faults)

    async def ask_once(provider: Provider) -> Answer:
        return await provider.ask(ask(), timeout_seconds=timeout_seconds)

    with pytest.raises(ProviderError) as caught:
        asked(name, server, ask_once)
    assert KEY not in str(caught.value) + str(caught.value.raw)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("name", ["local", *OVER_HTTP])
def test_an_answer_is_a_graph_that_the_summary_bears_out(name: str, llm_server: Server) -> None:
    answer = asked(name, llm_server)
    assert answer.end == "complete"
    graph = graph_of(answer.text, summary())
    assert ("artist", "Portishead") in {(node.kind, node.label) for node in graph.nodes}
    assert not llm_server.problems


@pytest.mark.parametrize("name", ["local", *OVER_HTTP])
def test_an_answer_names_model_and_usage_and_keeps_the_body(name: str, llm_server: Server) -> None:
    answer = asked(name, llm_server)
    provider = made(name, llm_server)
    assert answer.model == provider.model
    assert answer.raw
    assert answer.usage is not None
    assert (answer.usage.input > 0) == (answer.usage.output > 0) == (name != "local")
    assert provider.price is not None


def test_local_is_what_is_made_where_it_is_asked_for() -> None:
    assert isinstance(provider_of("local"), Local)


@pytest.mark.parametrize("name", OVER_HTTP)
def test_the_count_is_what_a_call_is_billed(name: str, llm_server: Server) -> None:
    async def count(provider: Provider) -> int:
        return await provider.count_tokens(ask())

    counted, billed = asked(name, llm_server, count), asked(name, llm_server).usage.input
    # By chat it is an estimate, of the same order.
    tolerance = 0.4 if name == "openai by chat" else 0
    assert counted == pytest.approx(billed, rel=tolerance, abs=0)


@pytest.mark.parametrize("name", OVER_HTTP)
@pytest.mark.parametrize(
    ("fault", "then", "pauses_all", "may_be_billed"),
    [
        ("rate_limit", "retry", True, False),
        ("rate_limit_silent", "retry", True, False),
        ("overloaded", "retry", False, False),
        ("server_error", "retry", False, False),
        ("reset", "retry", False, True),
        ("broken_body", "retry", False, True),
        ("bad_request", "skip", False, False),
        ("too_large", "skip", False, False),
        ("spend_limit", "stop", False, False),
        ("no_credit", "stop", False, False),
        ("unauthorized", "stop", False, False),
        ("not_found", "stop", False, False),
    ],
)
def test_a_failure_says_what_may_help(
    name: str, fault: str, then: Then, pauses_all: bool, may_be_billed: bool, llm_server: Server
) -> None:
    error = refusal(name, llm_server, fault)
    assert (error.then, error.is_rate_limit, error.may_be_billed) == (
        then,
        pauses_all,
        may_be_billed,
    )
    assert error.retry_after == (1.0 if fault == "rate_limit" else None)


@pytest.mark.parametrize("name", OVER_HTTP)
def test_a_failed_call_is_made_once(name: str, llm_server: Server) -> None:
    for fault in ("rate_limit_silent", "server_error", "reset", "spend_limit"):
        refusal(name, llm_server, fault)
    assert len(llm_server.calls) == 4


@pytest.mark.parametrize("name", OVER_HTTP)
@pytest.mark.parametrize("fault", ["hang", "trickle"])
def test_a_call_ends_by_its_timeout(name: str, fault: str, llm_server: Server) -> None:
    async def ask_once(provider: Provider) -> float:
        await provider.ask(ask(), timeout_seconds=20)  # connected, and the SDK is loaded
        llm_server.next_faults.append(fault)
        start = time.monotonic()
        with pytest.raises(ProviderError, match=r"0\.4 s") as caught:
            await provider.ask(ask(), timeout_seconds=0.4)
        assert caught.value.then == "retry"
        assert caught.value.may_be_billed
        return time.monotonic() - start

    assert asked(name, llm_server, ask_once) < 2


@pytest.mark.parametrize("name", OVER_HTTP)
def test_a_refusal_and_a_truncation_are_told_apart_and_paid(name: str, llm_server: Server) -> None:
    llm_server.next_faults.extend(["truncated", "refused"])
    truncated, refused = asked(name, llm_server), asked(name, llm_server)
    assert (truncated.end, refused.end) == ("truncated", "refused")
    assert refused.text is None
    assert truncated.usage.output > 1
    assert refused.usage.input > 0


@pytest.mark.parametrize("name", OVER_HTTP)
def test_a_reply_longer_than_allowed_is_truncated(name: str, llm_server: Server) -> None:
    async def ask_little(provider: Provider) -> Answer:
        return await provider.ask(ask(max_tokens=50), timeout_seconds=20)

    answer = asked(name, llm_server, ask_little)
    assert (answer.end, answer.usage.output) == ("truncated", 50)


@pytest.mark.parametrize("name", OVER_HTTP)
def test_more_tokens_than_the_sdk_allows_without_a_stream_can_be_asked_for(
    name: str, llm_server: Server
) -> None:
    async def ask_much(provider: Provider) -> Answer:
        return await provider.ask(ask(max_tokens=60_000), timeout_seconds=20)

    assert asked(name, llm_server, ask_much).end == "complete"


@pytest.mark.parametrize("name", OVER_HTTP)
def test_limits_are_learned_from_headers(name: str, llm_server: Server) -> None:
    llm_server.become(Script(requests_per_minute=600, burst=20, tokens_per_minute=90_000))
    limits = asked(name, llm_server).limits
    limit, remaining, seconds = limits.requests
    assert (limit, remaining) == (600, 19)
    assert 0 <= seconds < 2
    assert limits.input_tokens[0] == 90_000
    assert 0 < limits.input_tokens[1] < 90_000


@pytest.mark.parametrize("name", OVER_HTTP)
def test_a_call_over_the_limit_is_told_when_to_come_again(name: str, llm_server: Server) -> None:
    llm_server.become(Script(requests_per_minute=30, burst=1))
    asked(name, llm_server)
    error = refusal(name, llm_server)
    assert error.is_rate_limit
    assert error.retry_after == pytest.approx(2, abs=1)


@pytest.mark.parametrize("name", OVER_HTTP)
def test_a_server_that_is_not_there_is_retried_and_not_billed(
    name: str, llm_server: Server
) -> None:
    llm_server.url = "http://127.0.0.1:9"
    llm_server.openai_url = "http://127.0.0.1:9/v1"
    error = refusal(name, llm_server)
    assert (error.then, error.may_be_billed) == ("retry", False)


@pytest.mark.parametrize("name", OVER_HTTP)
def test_a_rejected_key_is_named_by_its_variable_alone(
    name: str, llm_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable = "ANTHROPIC_API_KEY" if name == "anthropic" else "OPENAI_API_KEY"
    monkeypatch.setenv(variable, "sk-another-key-0815")
    error = refusal(name, llm_server)  # the server's message holds parts of the key
    assert error.then == "stop"
    assert variable in str(error)
    assert "0815" not in str(error) + str(error.raw) + repr(error.__cause__)


async def collected(provider: BatchProvider, batch: str) -> dict[str, Answer | ProviderError]:
    found = cast("AsyncIterator[tuple[str, Answer | ProviderError]]", provider.results(batch))
    return {custom_id: result async for custom_id, result in found}


@pytest.mark.parametrize("name", OVER_HTTP)
def test_a_batch_brings_an_answer_for_each_custom_id(name: str, llm_server: Server) -> None:
    async def run(provider: BatchProvider) -> Any:
        asks = [(f"call-{n}", ask(artist=f"Artist {n}")) for n in range(20)]
        batch = await provider.submit("ours", asks)
        return await provider.poll(batch), await collected(provider, batch)

    state, results = asked(name, llm_server, run)
    assert (state.has_ended, state.num_done, state.num_failed) == (True, 20, 0)
    assert set(results) == {f"call-{n}" for n in range(20)}
    for n in range(20):
        graph = graph_of(results[f"call-{n}"].text, summary(artist=f"Artist {n}"))
        assert f"Artist {n}" in {node.label for node in graph.nodes}
    assert not llm_server.problems


@pytest.mark.parametrize("name", OVER_HTTP)
def test_a_line_separator_in_a_reply_does_not_break_a_batchs_line(
    name: str, llm_server: Server
) -> None:
    async def run(provider: BatchProvider) -> Any:
        batch = await provider.submit("ours", [("one", ask(artist="A\u2028B\u0085C"))])
        return await collected(provider, batch)

    results = asked(name, llm_server, run)
    assert list(results) == ["one"]
    assert "A\u2028B\u0085C" in results["one"].text


@pytest.mark.parametrize("name", OVER_HTTP)
def test_a_batch_says_of_each_call_what_became_of_it(name: str, llm_server: Server) -> None:
    faults = ["expired", "server_error", "refused", "truncated"]
    llm_server.next_faults.extend(faults)

    async def run(provider: BatchProvider) -> Any:
        asks = [(fault, ask()) for fault in [*faults, "none"]]
        batch = await provider.submit("ours", asks)
        return await provider.poll(batch), await collected(provider, batch)

    state, results = asked(name, llm_server, run)
    assert (state.num_done, state.num_failed) == (3, 2)
    assert results["expired"].then == results["server_error"].then == "retry"
    assert results["refused"].end == "refused"
    assert results["truncated"].end == "truncated"
    assert results["none"].end == "complete"


@pytest.mark.parametrize("name", OVER_HTTP)
def test_a_batch_is_polled_until_it_has_ended(name: str, llm_server: Server) -> None:
    llm_server.become(Script(batch_seconds=0.6))

    async def run(provider: BatchProvider) -> list[bool]:
        batch = await provider.submit("ours", [("one", ask())])
        first = await provider.poll(batch)
        await asyncio.sleep(0.7)
        return [first.has_ended, (await provider.poll(batch)).has_ended]

    assert asked(name, llm_server, run) == [False, True]


@pytest.mark.parametrize("name", OVER_HTTP)
def test_a_batch_whose_creation_was_cut_off_is_found_by_our_own_id(
    name: str, llm_server: Server
) -> None:
    async def run(provider: BatchProvider) -> None:
        start = time.time()
        await provider.submit("another", [("one", ask())])
        llm_server.next_faults.append("reset")
        with pytest.raises(ProviderError) as caught:
            await provider.submit("ours", [("two", ask())])
        assert caught.value.may_be_billed
        found = await provider.find("ours", start)
        assert found is not None
        assert list(await collected(provider, found)) == ["two"]
        assert await provider.find("never made", start) is None

    asked(name, llm_server, run)


def test_whose_an_unfinished_anthropic_batch_is_cannot_be_told(llm_server: Server) -> None:
    llm_server.become(Script(batch_seconds=30))

    async def run(provider: BatchProvider) -> None:
        start = time.time()
        other = await provider.submit("another", [("one", ask())])
        with pytest.raises(ProviderError, match="run again later") as caught:
            await provider.find("ours", start)
        assert caught.value.then == "retry"
        assert await provider.find("ours", start, known=[other]) is None

    asked("anthropic", llm_server, run)


@pytest.mark.parametrize("name", OVER_HTTP)
def test_a_batch_that_nobody_pays_for_stops(name: str, llm_server: Server) -> None:
    llm_server.next_faults.append("spend_limit")

    async def run(provider: BatchProvider) -> Then:
        with pytest.raises(ProviderError) as caught:
            await provider.submit("ours", [("one", ask())])
        return caught.value.then

    assert asked(name, llm_server, run) == "stop"


@pytest.mark.parametrize("name", OVER_HTTP)
def test_many_calls_run_side_by_side(name: str, llm_server: Server) -> None:
    llm_server.become(Script(latency_seconds=0.3))

    async def run(provider: Provider) -> float:
        await provider.ask(ask(), timeout_seconds=20)
        start = time.monotonic()
        calls: list[Awaitable[Answer]] = [
            provider.ask(ask(), timeout_seconds=20) for _ in range(30)
        ]
        assert {answer.end for answer in await asyncio.gather(*calls)} == {"complete"}
        return time.monotonic() - start

    assert asked(name, llm_server, run) < 3
    assert llm_server.max_in_flight > 15
