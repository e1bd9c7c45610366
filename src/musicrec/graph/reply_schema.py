"""The JSON schema that providers are asked to answer by: ``schema.Reply`` in few tokens.

Titles that Pydantic makes of names say nothing, and a class's docstring is for its readers here;
both would be paid for in every call.
"""

from __future__ import annotations

from typing import Any

from musicrec.graph.schema import Reply


def _bare(schema: Any, *, is_model: bool) -> Any:
    if isinstance(schema, list):
        return [_bare(part, is_model=False) for part in schema]
    if not isinstance(schema, dict):
        return schema
    left_out = {"title", "description"} if is_model else {"title"}
    bare: dict[str, Any] = {}
    for name, part in schema.items():
        if name in ("properties", "$defs"):
            # Their keys are names of ours, not of the schema language.
            bare[name] = {key: _bare(one, is_model=name == "$defs") for key, one in part.items()}
        elif name not in left_out:
            bare[name] = _bare(part, is_model=False)
    return bare


REPLY_SCHEMA: dict[str, Any] = _bare(Reply.model_json_schema(), is_model=True)
