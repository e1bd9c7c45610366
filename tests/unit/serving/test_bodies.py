"""What callers may send, and what they are told of what they may not."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import BaseModel, ValidationError

from musicrec.serving.bodies import EventBody, FeaturesBody, RecommendBody, SimilarBody


def places(model: type[BaseModel], body: object) -> list[tuple[object, ...]]:
    """Where ``body`` is wrong."""
    with pytest.raises(ValidationError) as error:
        model.model_validate_json(json.dumps(body))
    return [problem["loc"] for problem in error.value.errors()]


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({}, ()),
        ({"user_id": None, "history": None}, ()),
        ({"user_id": ""}, ("user_id",)),
        ({"user_id": "a\0b"}, ("user_id",)),  # which Postgres cannot hold
        ({"user_id": 42}, ("user_id",)),
        ({"user_id": "a" * 513}, ("user_id",)),
        ({"user_id": "a", "k": 0}, ("k",)),
        ({"user_id": "a", "k": 201}, ("k",)),
        ({"user_id": "a", "k": "10"}, ("k",)),
        ({"user_id": "a", "k": True}, ("k",)),
        ({"user_id": "a", "k": 10.5}, ("k",)),
        ({"user_id": "a", "k": 1e300}, ("k",)),
        ({"user_id": "a", "seen": "maybe"}, ("seen",)),
        ({"user_id": "a", "explore": 0.5}, ("explore",)),
        ({"history": ["a"] * 1001}, ("history",)),
        ({"history": ["a", ""]}, ("history", 1)),
        ({"history": "a"}, ("history",)),
        ({"user_id": "a", "exclude": ["b"] * 1001}, ("exclude",)),
        ({"user_id": "a", "context": {"session": ["b"] * 1001}}, ("context", "session")),
        ({"user_id": "a", "context": {"hour": 24}}, ("context", "hour")),
        ({"user_id": "a", "context": {"weekday": -1}}, ("context", "weekday")),
        ({"user_id": "a", "as_of": "2024-01-01T00:00:00"}, ("as_of",)),
        ({"user_id": "a", "as_of": 1700000000}, ("as_of",)),  # seconds or milliseconds?
        ({"user_id": "a", "as_of": "1969-12-31T23:59:59Z"}, ("as_of",)),
        ({"user_id": "a", "as_of": "0001-01-01T00:00:00+14:00"}, ("as_of",)),
        ({"user_id": "a", "as_of": "9999-12-31T23:59:59-14:00"}, ("as_of",)),
    ],
)
def test_a_request_that_is_wrong_is_told_where(body, place):
    assert places(RecommendBody, body) == [place]


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"user_id": "a", "track_id": "b"}, ("kind",)),
        ({"user_id": "a", "track_id": "b", "kind": "love"}, ("kind",)),
        ({"user_id": "a", "kind": "like"}, ("track_id",)),
        ({"user_id": "a", "track_id": "b", "kind": "listen", "ms_played": -1}, ("ms_played",)),
        ({"user_id": "a", "track_id": "b", "kind": "listen", "ms_played": 2**31}, ("ms_played",)),
        ({"user_id": "a", "track_id": "b", "kind": "listen", "device": "\0"}, ("device",)),
    ],
)
def test_an_event_that_is_wrong_is_told_where(body, place):
    assert places(EventBody, body) == [place]


def test_ten_point_zero_is_ten():
    assert RecommendBody.model_validate_json('{"user_id": "a", "k": 10.0}').k == 10


def test_a_moment_is_handed_on_in_utc():
    body = RecommendBody.model_validate_json(
        '{"user_id": "a", "as_of": "2024-03-04T18:00:00+02:00"}'
    )
    as_of = body.ask(None).as_of
    assert as_of == datetime(2024, 3, 4, 16, tzinfo=UTC)
    assert as_of.utcoffset() == timedelta(0)


def test_the_servers_moment_holds_where_a_request_names_none():
    moment = datetime(2024, 3, 4, tzinfo=UTC)
    assert RecommendBody.model_validate_json('{"user_id": "a"}').ask(moment).as_of == moment


def test_somebody_unknown_may_have_no_history_yet():
    assert RecommendBody.model_validate_json('{"history": []}').ask(None).history == ()


@pytest.mark.parametrize("model", [RecommendBody, SimilarBody, EventBody, FeaturesBody])
def test_every_example_is_what_it_is_an_example_of(model):
    examples = model.model_json_schema()["examples"]
    assert examples
    for example in examples:
        model.model_validate_json(json.dumps(example))


def test_the_description_has_the_bounds_of_every_number():
    bodies = (RecommendBody, SimilarBody, EventBody)
    schemas = [model.model_json_schema() for model in bodies]
    schemas += [definition for schema in schemas for definition in schema.get("$defs", {}).values()]
    numbers = {
        name: each
        for schema in schemas
        for name, field in schema["properties"].items()
        for each in (field, *field.get("anyOf", ()))
        if each.get("type") == "integer"
    }
    assert set(numbers) == {"hour", "weekday", "k", "ms_played"}
    assert all({"minimum", "maximum"} <= each.keys() for each in numbers.values())
