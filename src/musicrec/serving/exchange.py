"""Bodies in and out: pydantic reads and checks, orjson writes.

FastAPI's own way goes through Python's json on the way in, which a deep nesting makes fail, and
through a model on the way out, which costs more than the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import orjson
from fastapi import HTTPException, Request, Response
from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound=BaseModel)

#: Problems of one body that are told; somebody may send a thousand.
MAX_PROBLEMS = 20

_WRITE = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_UTC_Z


class Refused(Exception):
    """A body that is not as it should be.

    Attributes:
        problems: pydantic's, without what was sent: it may be a listener's history.
    """

    def __init__(self, problems: list[dict[str, Any]]) -> None:
        super().__init__(f"{len(problems)} problems")
        self.problems = problems


async def read(request: Request, model: type[Model]) -> Model:
    """The request's body.

    Raises:
        HTTPException: 415, it does not say that it is JSON; a page of another site, in a browser,
            cannot say so without asking first.
        Refused: it is none, or not as it should be.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HTTPException(415, "send JSON, with Content-Type: application/json")
    try:
        return model.model_validate_json(await request.body())
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        raise Refused([dict(problem) for problem in problems[:MAX_PROBLEMS]]) from None


def written(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer of JSON; dataclasses, moments and arrays among it, NaN as null."""
    body = orjson.dumps(content, option=_WRITE)
    return Response(body, status, dict(headers or {}), media_type="application/json")


def refusal(status: int, detail: Any, headers: Mapping[str, str] | None = None) -> Response:
    """An answer that says what is wrong, as all errors are said."""
    return written({"detail": detail}, status, headers)


def body_of(model: type[BaseModel]) -> dict[str, Any]:
    """What OpenAPI says of a body that is read by ``read``."""
    schema = model.model_json_schema()
    schema = _inlined(schema, schema.pop("$defs", {}))
    examples = {
        f"example {number}": {"value": example}
        for number, example in enumerate(schema.pop("examples", []), start=1)
    }
    content = {"schema": schema, **({"examples": examples} if examples else {})}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


def _inlined(node: Any, definitions: Mapping[str, Any]) -> Any:
    if isinstance(node, list):
        return [_inlined(each, definitions) for each in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        referred = definitions[node["$ref"].rpartition("/")[2]]
        return _inlined(referred | {k: v for k, v in node.items() if k != "$ref"}, definitions)
    return {key: _inlined(value, definitions) for key, value in node.items()}
