"""What providers' error bodies and headers mean, without a server."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musicrec.graph.failures import Account, body_of, error_of, refusal_of
from musicrec.graph.headers import anthropic_limits, openai_limits, retry_after
from musicrec.graph.openai_provider import OpenAIProvider
from musicrec.graph.openai_wire import batch_error, chat_answer, response_answer
from musicrec.graph.provider import Answer, Limits, ProviderError, Then

ACCOUNT = Account("openai", "gpt-6-luna", "OPENAI_API_KEY", "sk-secret-4711")


def test_a_spend_limit_stops_whatever_its_status() -> None:
    anthropic = {
        "type": "rate_limit_error",
        "details": {"error_code": "enforced_spend_limit_reached"},
    }
    assert error_of(refusal_of(429, {"error": anthropic}), ACCOUNT).then == "stop"
    quota = {"type": "insufficient_quota", "code": None}
    assert error_of(refusal_of(429, {"error": quota}), ACCOUNT).then == "stop"


def test_a_ramp_limit_is_a_rate_limit() -> None:
    ramp = {"type": "rate_limit_error", "details": {"error_code": "ramp_limit_exceeded"}}
    error = error_of(refusal_of(429, {"error": ramp}, {"retry-after": "7"}), ACCOUNT)
    assert (error.then, error.is_rate_limit, error.retry_after) == ("retry", True, 7.0)


@pytest.mark.parametrize(
    ("param", "then"),
    [("input", "skip"), ("messages[1].content", "skip"), (None, "skip"), ("text.format", "stop")],
)
def test_a_bad_setting_stops_and_a_bad_prompt_skips(param: str | None, then: Then) -> None:
    body = {"error": {"message": "no", "type": "invalid_request_error", "param": param}}
    assert error_of(refusal_of(400, body), ACCOUNT).then == then


def test_a_server_that_asks_not_to_be_asked_again_is_obeyed() -> None:
    headers = {"x-should-retry": "false"}
    assert error_of(refusal_of(429, {}, headers), ACCOUNT).then == "stop"
    assert error_of(refusal_of(500, {}, headers), ACCOUNT).then == "skip"


def test_an_overload_pauses_everybody_where_it_says_for_how_long() -> None:
    assert not error_of(refusal_of(529, {}), ACCOUNT).is_rate_limit
    assert error_of(refusal_of(529, {}, {"retry-after": "3"}), ACCOUNT).is_rate_limit


TEXTS = st.text(max_size=20) | st.just(f"the key {ACCOUNT.key} is wrong")


@given(
    status=st.integers(300, 599),
    body=st.recursive(
        st.none() | TEXTS | st.integers(),
        lambda part: st.lists(part) | st.dictionaries(st.text(max_size=5), part),
        max_leaves=5,
    )
    | st.fixed_dictionaries(
        {
            "error": st.dictionaries(
                st.sampled_from(["message", "code", "type", "param", "details"]), TEXTS
            )
        }
    ),
)
def test_any_error_body_makes_one_line_without_the_key(status: int, body: Any) -> None:
    error = error_of(refusal_of(status, body), ACCOUNT, raw=body)
    assert len(str(error).splitlines()) == 1
    assert len(str(error)) < 700
    assert ACCOUNT.key not in str(error) + str(error.raw)


def test_the_key_is_hidden_in_message_and_raw() -> None:
    body = {"error": {"message": f"bad header {ACCOUNT.key}"}}
    error = error_of(refusal_of(400, body), ACCOUNT, raw=body)
    assert ACCOUNT.key not in str(error) + str(error.raw) + repr(ACCOUNT)


@pytest.mark.parametrize("text", ["", "<html>", "[1]", '{"id": "msg_', "null"])
def test_a_200_without_a_json_object_may_be_billed(text: str) -> None:
    with pytest.raises(ProviderError) as caught:
        body_of(text, ACCOUNT)
    assert (caught.value.then, caught.value.may_be_billed) == ("retry", True)
    assert caught.value.raw == {"text": text}


def test_retry_after_is_read_as_seconds_milliseconds_or_a_date() -> None:
    assert retry_after({"retry-after": "2.5"}) == 2.5
    assert retry_after({"retry-after-ms": "20", "retry-after": "1"}) == 0.02
    now = datetime(2026, 11, 22, 12, tzinfo=UTC)
    dates = {"date": now, "retry-after": now + timedelta(seconds=90)}
    assert retry_after({name: format_datetime(at, True) for name, at in dates.items()}) == 90
    for nonsense in ("soon", "-3", "nan", "inf", ""):
        assert retry_after({"retry-after": nonsense}) is None


def test_anthropic_resets_are_moments_by_the_servers_clock() -> None:
    headers = {
        "date": "Sun, 22 Nov 2026 12:00:00 GMT",
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-requests-remaining": "49",
        "anthropic-ratelimit-requests-reset": "2026-11-22T12:00:02Z",
        "anthropic-ratelimit-output-tokens-limit": "8000",
        "anthropic-ratelimit-output-tokens-remaining": "x",
    }
    assert anthropic_limits(headers) == Limits(requests=(50, 49, 2.0))


@pytest.mark.parametrize(
    ("text", "seconds"), [("20ms", 0.02), ("1s", 1), ("6m0s", 360), ("1h2m3.5s", 3723.5), ("7", 7)]
)
def test_openai_resets_are_durations(text: str, seconds: float) -> None:
    headers = {
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "10",
        "x-ratelimit-reset-tokens": text,
    }
    assert openai_limits(headers) == Limits(input_tokens=(1000, 10, pytest.approx(seconds)))


def test_a_response_that_failed_is_an_error_and_not_an_answer() -> None:
    body = {"status": "failed", "error": {"code": "server_error", "message": "oops"}}
    error = response_answer(body, ACCOUNT, Limits())
    assert isinstance(error, ProviderError)
    assert error.then == "retry"
    body["error"] = {"code": "invalid_prompt", "message": "no"}
    error = response_answer(body, ACCOUNT, Limits())
    assert isinstance(error, ProviderError)
    assert error.then == "skip"


def test_filtered_content_is_a_refusal() -> None:
    response = {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}
    chat = {"choices": [{"finish_reason": "content_filter", "message": {"content": "{"}}]}
    for answer in (
        response_answer(response, ACCOUNT, Limits()),
        chat_answer(chat, ACCOUNT, Limits()),
    ):
        assert isinstance(answer, Answer)
        assert answer.end == "refused"
        assert answer.usage is None


def test_a_batch_refused_as_a_whole_says_why() -> None:
    data = [{"code": "invalid_json_line", "message": "line 3"}]
    error = batch_error({"id": "b", "status": "failed", "errors": {"data": data}}, ACCOUNT)
    assert (error.then, "line 3" in str(error)) == ("stop", True)
    data = [{"code": "token_limit_exceeded", "message": "too many enqueued"}]
    error = batch_error({"id": "b", "status": "failed", "errors": {"data": data}}, ACCOUNT)
    assert (error.then, error.is_rate_limit) == ("retry", True)


@pytest.mark.parametrize(
    "body",
    [
        {"choices": [{"message": {"content": [{"text": "parts"}]}}]},
        {"choices": ["text"]},
        {"choices": 3},
    ],
)
def test_a_200_of_an_unknown_shape_is_kept_with_its_error(body: Any) -> None:
    provider = OpenAIProvider("m", "key", base_url=None, api="chat", effort=None, price=None)
    error = provider._read(body, Limits())
    assert isinstance(error, ProviderError)
    assert (error.then, error.may_be_billed, error.raw) == ("skip", True, body)


def test_no_number_is_read_that_postgres_does_not_take() -> None:
    body = body_of('{"usage": NaN, "more": [-Infinity]}', ACCOUNT)
    json.dumps(body, allow_nan=False)
