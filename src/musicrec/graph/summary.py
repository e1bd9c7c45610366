"""Summaries of the listeners of a dataset, one or many; ``digest`` says what stands in one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from musicrec.database.engine import Dataset
from musicrec.errors import DataError
from musicrec.graph.condense import condense
from musicrec.graph.digest import Summary, estimate_tokens, evidence_id
from musicrec.graph.history import histories, user_key_of

__all__ = ["Summary", "estimate_tokens", "evidence_id", "summaries", "summarize"]


def summarize(
    dataset: Dataset,
    user_id: str,
    *,
    as_of: datetime | None = None,
    max_tokens: int = 3000,
    zone: str = "UTC",
) -> Summary:
    """One listener's summary; see ``summaries``.

    Raises:
        DataError: no such user, or without a play before ``as_of``; also as ``summaries``.
    """
    key = user_key_of(dataset, user_id)
    found = summaries(dataset, [key], as_of=as_of, max_tokens=max_tokens, zone=zone)
    if key not in found:
        before = f" before as_of={as_of.isoformat()}" if as_of else ""
        raise DataError(
            f"user {user_id!r} of dataset {dataset.name!r} has no listens{before}; import some, or "
            "set a later as_of"
        )
    return found[key]


def summaries(
    dataset: Dataset,
    user_keys: Sequence[int],
    *,
    as_of: datetime | None = None,
    max_tokens: int = 3000,
    zone: str = "UTC",
) -> dict[int, Summary]:
    """Summaries by user key, by rising key; who has no play before ``as_of`` is not in it.

    Recent is what the listener played last, whatever ``as_of`` is, so that a history to which
    nothing was added keeps its summary and its hash.

    Args:
        dataset: a timed one.
        max_tokens: of ``text``, by ``estimate_tokens``; fewer rows stand in a smaller one.
        zone: an IANA name; whose clock the parts of the day are of.

    Raises:
        DataError: the dataset has no times, or no listens.
        ConfigError: no such zone, ``as_of`` without one, or ``max_tokens`` too few for five rows.
        DatabaseError: the server refuses or is lost.
    """
    read = histories(dataset, user_keys, as_of=as_of, zone=zone)
    return {
        user: condense(history, tracks, zone=zone, max_tokens=max_tokens)
        for user, history, tracks in read
    }
