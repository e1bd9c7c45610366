"""What the test's LLM server checks in a request, counts, and replies.

A request is refused as the real servers refuse it: a schema that strict structured output does not
take, a setting that the endpoint does not know. A valid reply is made of the evidence rows of the
prompt: lines of JSON with ``"id": "e1"``.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

# As byte-pair tokenizers split before they merge: a word, up to three digits, a run of marks.
_PIECES = re.compile(r"\s?[^\W\d_]+|\d{1,3}|[^\w\s]+|\s+|_+")
_IDS = re.compile(r"e[1-9]\d*")


@lru_cache(maxsize=512)  # rules and schema come with every call
def tokens(text: str) -> int:
    """About as many as a byte-pair tokenizer makes; not anybody's own count."""
    pieces = _PIECES.findall(text)
    return sum(max(1, math.ceil(len(piece.strip().encode()) / 6)) for piece in pieces)


def evidence(prompt: str) -> list[dict[str, Any]]:
    """The evidence rows of a prompt, each id once."""
    rows: dict[str, dict[str, Any]] = {}
    # Not splitlines(): a title's U+2028 may stand in a line of JSON.
    for line in prompt.split("\n"):
        try:
            row = json.loads(line.strip().rstrip(","))
        except ValueError:
            continue
        if isinstance(row, dict) and _IDS.fullmatch(str(row.get("id"))):
            rows.setdefault(row["id"], row)
    return list(rows.values())


def reply(prompt: str, *, wrong_ids: bool = False) -> dict[str, Any]:
    """A graph that the prompt's evidence bears out: artists, eras and tags, by their plays.

    Args:
        wrong_ids: cite evidence that was never sent.
    """
    rows = evidence(prompt)
    cited: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    plays: Counter[tuple[str, str]] = Counter()
    for row in rows:
        labels = [("artist", row["artist"])] if row.get("artist") else []
        labels += [("genre", tag) for tag in row.get("tags") or []]
        if row.get("year"):
            labels.append(("era", f"{int(row['year']) // 10 * 10}s"))
        for label in labels:
            cited[label].append(row["id"])
            plays[label] += int(row.get("plays") or 1)
    # Moods cite what there is, so that rows without artist, tags and year have a node as well.
    for row in rows[:3]:
        cited["mood", "calm"].append(row["id"])
        plays["mood", "calm"] += 1
    chosen = sorted(cited, key=lambda label: (-plays[label], label))[:12]
    total = sum(plays[label] for label in chosen)
    nodes = [
        {
            "id": f"n{place}",
            "kind": kind,
            "label": label,
            "weight": round(plays[kind, label] / total, 3),
            "term": "long" if place % 3 else "short",
            "evidence": ["e99999"] if wrong_ids else cited[kind, label][:12],
        }
        for place, (kind, label) in enumerate(chosen, start=1)
    ]
    relations = [
        {"source": one["id"], "target": other["id"], "kind": "with", "weight": 0.5}
        for one, other in itertools.pairwise(nodes[:4])
    ]
    return {"nodes": nodes, "relations": relations}


_UNSUPPORTED = ("minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "pattern")


def schema_problem(schema: Any, path: str = "schema") -> str | None:
    """Why strict structured output would refuse ``schema``, or None."""
    if isinstance(schema, Mapping):
        if schema.get("type") == "object":
            if schema.get("additionalProperties") is not False:
                return f"{path}: 'additionalProperties' must be false"
            if set(schema.get("required", ())) != set(schema.get("properties", ())):
                return f"{path}: 'required' must name every property"
        for word in _UNSUPPORTED:
            if word in schema and not isinstance(schema[word], Mapping):
                return f"{path}: '{word}' is not supported"
        found = (schema_problem(part, f"{path}.{name}") for name, part in schema.items())
        return next((problem for problem in found if problem), None)
    if isinstance(schema, list):
        found = (schema_problem(part, f"{path}[{i}]") for i, part in enumerate(schema))
        return next((problem for problem in found if problem), None)
    return None


def _unknown(body: Mapping[str, Any], known: Sequence[str]) -> str | None:
    extra = sorted(set(body) - set(known))
    return f"{extra[0]}: Extra inputs are not permitted" if extra else None


def messages_problem(body: Mapping[str, Any], *, counting: bool = False) -> str | None:
    """Why ``/v1/messages`` would refuse ``body``, or None."""
    known = ["model", "messages", "system", "output_config", *(() if counting else ["max_tokens"])]
    if problem := _unknown(body, known):
        return problem
    for name in ("model", "messages") if counting else ("model", "messages", "max_tokens"):
        if not body.get(name):
            return f"{name}: Field required"
    if [message.get("role") for message in body["messages"]] != ["user"]:
        return "messages: one message of the user is expected here"
    form = body.get("output_config", {}).get("format", {})
    if form.get("type") != "json_schema":
        return "output_config.format: a json_schema is expected here"
    return schema_problem(form.get("schema"))


def responses_problem(body: Mapping[str, Any], *, counting: bool = False) -> str | None:
    """Why ``/v1/responses`` would refuse ``body``, or None; also where it would be stored."""
    known = ["model", "instructions", "input", "text", "reasoning"]
    known += [] if counting else ["max_output_tokens", "store", "prompt_cache_key"]
    if problem := _unknown(body, known):
        return problem
    for name in ("model", "input") if counting else ("model", "input", "max_output_tokens"):
        if not body.get(name):
            return f"Missing required parameter: '{name}'."
    if not counting and body.get("store") is not False:
        return "store: must be false here, or the reply is kept for 30 days"
    form = body.get("text", {}).get("format", {})
    if form.get("type") != "json_schema" or not form.get("name") or form.get("strict") is not True:
        return "text.format: a named, strict json_schema is expected here"
    return schema_problem(form.get("schema"))


def chat_problem(body: Mapping[str, Any], *, counting: bool = False) -> str | None:
    """Why ``/v1/chat/completions`` would refuse ``body``, or None."""
    known = ("model", "messages", "max_tokens", "response_format", "reasoning_effort")
    if problem := _unknown(body, known):
        return problem
    if [message.get("role") for message in body.get("messages", ())] != ["system", "user"]:
        return "messages: one of the system and one of the user are expected here"
    form = body.get("response_format", {})
    if form.get("type") != "json_schema" or not form.get("json_schema", {}).get("name"):
        return "response_format: a named json_schema is expected here"
    return schema_problem(form["json_schema"].get("schema"))


def spoken(body: Mapping[str, Any]) -> tuple[str, int, int]:
    """Of a request to any of the endpoints: what the user says, its input tokens, its limit."""
    said = body.get("input") or body["messages"][-1]["content"]
    rules = body.get("instructions") or body.get("system") or body["messages"][0]["content"]
    told = rules if isinstance(rules, str) else "".join(block["text"] for block in rules)
    schema = (
        body.get("output_config", {}).get("format", {}).get("schema")
        or body.get("text", {}).get("format", {}).get("schema")
        or body.get("response_format", {}).get("json_schema", {}).get("schema")
    )
    parts = (told, said, json.dumps(schema, separators=(",", ":")))
    limit = body.get("max_tokens") or body.get("max_output_tokens") or 0
    return said, sum(tokens(part) for part in parts), limit
