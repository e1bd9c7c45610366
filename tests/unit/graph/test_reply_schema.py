"""The schema that is sent is one that both SDKs would send as it is."""

from __future__ import annotations

import copy
import json
from typing import Any

import anthropic
import jsonschema
import pytest
from openai.lib._pydantic import _ensure_strict_json_schema

from llm_prompts import ask
from llm_replies import reply, schema_problem
from musicrec.graph.reply_schema import REPLY_SCHEMA
from musicrec.graph.schema import Reply


def without_types_of_enums(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {
            name: without_types_of_enums(part)
            for name, part in schema.items()
            if not (name == "type" and "enum" in schema)
        }
    return [without_types_of_enums(part) for part in schema] if isinstance(schema, list) else schema


def test_anthropics_sdk_would_change_nothing_but_the_types_of_enums() -> None:
    assert anthropic.transform_schema(REPLY_SCHEMA) == without_types_of_enums(REPLY_SCHEMA)


def test_openais_sdk_would_change_nothing() -> None:
    strict = copy.deepcopy(REPLY_SCHEMA)
    assert _ensure_strict_json_schema(strict, path=(), root=strict) == REPLY_SCHEMA


def test_it_says_what_pydantic_says_in_fewer_characters() -> None:
    whole = Reply.model_json_schema()
    assert len(json.dumps(REPLY_SCHEMA)) < 0.8 * len(json.dumps(whole))
    good = reply(ask().prompt)
    for schema in (REPLY_SCHEMA, whole):
        jsonschema.validate(good, schema)
        for bad in ({"nodes": []}, good | {"more": 1}, {"nodes": [{}], "relations": []}):
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate(bad, schema)


def test_the_test_server_takes_it_and_refuses_a_loose_one() -> None:
    assert schema_problem(REPLY_SCHEMA) is None
    assert schema_problem({"type": "object", "properties": {}}) is not None
