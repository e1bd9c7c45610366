"""A stored graph as a JSON document: what it says, what it rests on, and where it comes from."""

from __future__ import annotations

from typing import Any

from musicrec.graph.stored import StoredGraph


def document_of(stored: StoredGraph) -> dict[str, Any]:
    """``heading_of``, ``nodes`` with their evidence, and ``edges`` between places of nodes."""
    return heading_of(stored) | stored.graph.model_dump(mode="json")


def heading_of(stored: StoredGraph) -> dict[str, Any]:
    """Whose graph it is, which, from when to when, and its ``provenance``; moments are ISO, UTC."""
    return {
        "user_id": stored.user_id,
        "version": stored.version,
        "is_current": stored.is_current,
        "valid_from": stored.valid_from.isoformat(),
        "valid_to": None if stored.valid_to is None else stored.valid_to.isoformat(),
        "provenance": {
            "provider": stored.provider,
            "model": stored.model,
            "prompt_hash": stored.prompt_hash,
            "input_hash": stored.input_hash,
            "input_tokens": stored.input_tokens,
            "output_tokens": stored.output_tokens,
            "cost_usd": stored.cost_usd,
            "created_at": stored.created_at.isoformat(),
        },
    }
