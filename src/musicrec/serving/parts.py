"""What a request asks of Postgres and of Redis, and how it goes on where they do not answer."""

from __future__ import annotations

from typing import Literal

#: A server of which an answer may be without.
Part = Literal["postgres", "redis"]

#: How long a request waits for a part of its answer.
BUDGET_SECONDS = 0.03


class PartUnavailable(Exception):
    """A part did not answer, or not within its budget; the message says why, in one line."""
