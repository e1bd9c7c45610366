"""What is known of a listener now: from Postgres, or as this process last read it."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from musicrec.serving.breaker import Breaker
from musicrec.serving.moment import microseconds
from musicrec.serving.parts import PartUnavailable
from musicrec.serving.postgres import Postgres
from musicrec.serving.stored import GraphRow, Stored, read_listener

#: Listeners whose newest read is kept for when Postgres is away; about 17 KB each at most.
REMEMBERED = 2_000


class Recalled(NamedTuple):
    """What is known of a listener; None of somebody nobody knows."""

    stored: Stored | None
    why: str | None
    """Why Postgres could not be read, so that this is older knowledge; None if it was."""


class Recall:
    """Reads listeners, and remembers what it read for as long as it cannot read.

    While Postgres answers, nothing that is remembered is used: a play is in the next answer,
    whichever process it was written by.

    Args:
        postgres: connections to the dataset.
        budget_seconds: to wait for it.
        breaker: leaves it alone for a moment where it failed.
    """

    def __init__(self, postgres: Postgres, budget_seconds: float, breaker: Breaker) -> None:
        self._postgres = postgres
        self._budget = budget_seconds
        self._breaker = breaker
        self._remembered: OrderedDict[str, tuple[Stored, datetime | None]] = OrderedDict()

    async def of(
        self, user_id: str, before: datetime | None, *, graph_known: int | None, all_heard: bool
    ) -> Recalled:
        """What is known of a listener before a moment; None is now. Args as ``read_listener``."""
        if not self._breaker.may_ask():
            why = f"left alone for a moment: {self._breaker.why}"
            return Recalled(self._last(user_id, before, graph_known), why)
        try:
            stored = await read_listener(
                self._postgres,
                user_id,
                before,
                graph_known=graph_known,
                all_heard=all_heard,
                seconds=self._budget,
            )
        except PartUnavailable as unavailable:
            self._breaker.failed(str(unavailable))
            return Recalled(self._last(user_id, before, graph_known), str(unavailable))
        self._breaker.succeeded()
        self._remember(user_id, stored, before)
        return Recalled(stored, None)

    def _remember(self, user_id: str, stored: Stored | None, before: datetime | None) -> None:
        if stored is None:  # also somebody who was erased
            self._remembered.pop(user_id, None)
            return
        known = self._remembered.get(user_id)
        if known is not None and before is not None and (known[1] is None or known[1] > before):
            return  # a look into the past says less
        # The document is the interests' to remember.
        graph = stored.graph and GraphRow(stored.graph.graph_id, None)
        self._remembered[user_id] = replace(stored, graph=graph, heard=None), before
        self._remembered.move_to_end(user_id)
        if len(self._remembered) > REMEMBERED:
            self._remembered.popitem(last=False)

    def _last(
        self, user_id: str, before: datetime | None, graph_known: int | None
    ) -> Stored | None:
        known = self._remembered.get(user_id)
        if known is None:
            return None
        stored, _ = known
        if stored.graph is not None and stored.graph.graph_id != graph_known:
            stored = replace(stored, graph=None)
        if before is None:
            return stored
        is_before = stored.times < microseconds(before)
        return replace(
            stored,
            tracks=stored.tracks[is_before],
            times=stored.times[is_before],
            skipped=stored.skipped[is_before],
        )
