"""What one request asks of Redis and what the answer means, compiled once; no I/O in here.

A request is one HMGET per entity: the user, then each candidate, then the user with each
candidate. Its fields are the features of all views of that entity, then their stamps, so that a
reply without its stamps is values only (``replies``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from math import isnan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from musicrec.errors import FeatureError
from musicrec.features import context as on_demand
from musicrec.features.asked import (
    EVERYTHING,
    MICROSECOND,
    check,
    check_context,
    micros,
    with_inputs,
    wrong_ids,
)
from musicrec.features.commands import Command
from musicrec.features.context import Context
from musicrec.features.replies import UNREADABLE, rows_of, values_of
from musicrec.features.values import Stamps
from musicrec.features.views import BY_NAME

_NAN = np.float32("nan")
_LISTS = {list}
_KINDS = (("user",), ("track",), ("user", "track"))


class State(IntEnum):
    """What there is of a view for a candidate. Only ``FRESH`` values are handed out."""

    FRESH = 0
    STALE = 1
    """A row, but older than the view's time to live, or of after the moment asked for."""
    MISSING = 2
    """No row."""
    UNAVAILABLE = 3
    """Redis did not answer."""


_FRESH, _STALE, _MISSING = int(State.FRESH), int(State.STALE), int(State.MISSING)


@dataclass(slots=True)
class FeatureMatrix:
    """The features of one user and some candidates.

    Attributes:
        values: ``(candidates, features)`` float32; NaN where the view's state is not fresh, and
            where the feature is null.
        columns: the features' names, ``view__feature``: stored ones, then those on demand.
        views: the stored views, in the order of ``states`` and ``ages``.
        states: ``(candidates, views)`` uint8, of ``State``.
        ages: ``(candidates, views)`` float32, seconds from the row's stamp to the moment asked
            for, negative for a later row; NaN where there is none.
        reason: why views are unavailable, in one line.
    """

    values: NDArray[np.float32]
    columns: tuple[str, ...]
    views: tuple[str, ...]
    states: NDArray[np.uint8]
    ages: NDArray[np.float32]
    reason: str | None = None


class ReadPlan:
    """How a feature service is read; anybody may share it.

    Args:
        project: Feast's project name: the dataset.
        features: the names of the features asked for, by view, as a feature service has them.

    Attributes:
        columns, views: those of every ``FeatureMatrix`` it makes.

    Raises:
        FeatureError: there is no such view or feature, or none is asked for.
    """

    def __init__(self, project: str, features: Mapping[str, Sequence[str]] = EVERYTHING) -> None:
        check(features)
        asked = {BY_NAME[view]: list(features[view]) for view in features if view in BY_NAME}
        context = features.get(on_demand.NAME, ())
        read = with_inputs(asked) if context else asked
        self._commands = [
            Command(project, some)
            for kind in _KINDS
            if (some := {view: read[view] for view in read if view.entities == kind})
        ]
        views = [view for command in self._commands for view in command.views]
        stored = [column for command in self._commands for column in command.columns]
        forever = float("inf")
        self._stamps = Stamps()
        self._ttls = [v.ttl / MICROSECOND if v.ttl else forever for v in views]
        self._inputs = [stored.index(name) for name in on_demand.STORED_INPUTS] if context else []
        self._num_stored = len(stored)
        computed = on_demand.COLUMNS if context else ()
        self._width = len(stored) + len(computed)
        self.views = tuple(view.name for view in asked)
        self.columns = (
            *(f"{view.name}__{name}" for view, names in asked.items() for name in names),
            *(f"{on_demand.NAME}__{name}" for name in context),
        )
        self._chosen_views = _places(self.views, [view.name for view in views])
        self._chosen_columns = _places(self.columns, [*stored, *computed])

    def num_replies(self, num_candidates: int) -> int:
        """How many replies Redis gives to one request."""
        return sum(num_candidates if c.is_per_candidate else 1 for c in self._commands)

    def encode(self, user_id: str, track_ids: Sequence[str]) -> bytes:
        """One request, ready to be sent.

        Args:
            user_id: the listener.
            track_ids: the candidates; any number, repeats allowed.

        Raises:
            FeatureError: an id is no text, or is empty.
        """
        try:
            if isinstance(track_ids, str):
                raise TypeError
            user_id.encode()
            tracks = [track_id.encode() for track_id in track_ids]
        except (AttributeError, TypeError, UnicodeEncodeError):
            raise wrong_ids(user_id, track_ids) from None
        if not user_id or not all(tracks):
            raise wrong_ids(user_id, track_ids)
        return b"".join([command.encode(user_id, tracks) for command in self._commands])

    def decode(
        self,
        replies: Sequence[Any],
        track_ids: Sequence[str],
        context: Context,
        as_of: datetime | None = None,
    ) -> FeatureMatrix:
        """What Redis' replies to one request say.

        Args:
            replies: as hiredis reads them, one per command; they are used up.
            track_ids: the request's.
            context: the moment the listener is in.
            as_of: the moment to answer for, with its time zone; now by default.

        Raises:
            FeatureError: something in Redis cannot be read, or an argument makes no sense.
        """
        now = micros(as_of)
        if not _LISTS.issuperset(map(type, replies)):
            refusal = next(reply for reply in replies if not isinstance(reply, list))
            return self.unavailable(f"Redis refuses: {refusal}", track_ids, context)
        num = len(track_ids)
        states = np.empty((len(self._ttls), num), np.uint8)
        ages = np.empty((len(self._ttls), num), np.float32)
        self._judge(replies, now, states, ages)
        values = values_of(self._commands, replies, num, self._width)
        return self._matrix(values, states.T, ages.T, track_ids, context)

    def unavailable(self, reason: str, track_ids: Sequence[str], context: Context) -> FeatureMatrix:
        """The answer without Redis; what depends on the moment alone is still in it."""
        num, num_views = len(track_ids), len(self._ttls)
        matrix = self._matrix(
            np.full((num, self._width), _NAN),
            np.full((num, num_views), State.UNAVAILABLE, np.uint8),
            np.full((num, num_views), _NAN),
            track_ids,
            context,
        )
        matrix.reason = reason
        return matrix

    def _matrix(
        self,
        values: NDArray[np.float32],
        states: NDArray[np.uint8],
        ages: NDArray[np.float32],
        track_ids: Sequence[str],
        context: Context,
    ) -> FeatureMatrix:
        if self._inputs:
            check_context(context)
            energies = [values[:, place] for place in self._inputs]
            values[:, self._num_stored :] = on_demand.of_request(context, track_ids, *energies)
        if self._chosen_columns is not None:
            values = values.take(self._chosen_columns, axis=1)  # in rows, as without a choice
        if self._chosen_views is not None:
            states, ages = states[:, self._chosen_views], ages[:, self._chosen_views]
        return FeatureMatrix(values, self.columns, self.views, states, ages)

    def _judge(
        self,
        replies: Sequence[Any],
        now: float,
        states: NDArray[np.uint8],
        ages: NDArray[np.float32],
    ) -> None:
        """Take the stamps off the replies, and all values that are not fresh.

        A view has few different stamps among the candidates of a request, mostly one.

        Args:
            replies: of the request.
            now: microseconds since 1970.
            states, ages: ``(views, candidates)``, to be filled.
        """
        place = 0
        for command, rows in rows_of(self._commands, replies, states.shape[1]):
            for view, columns, blank in command.spans:
                stamps = [row.pop() for row in rows]
                verdicts = {}
                for stamp in set(stamps):
                    try:
                        age = now - self._stamps[stamp]
                    except ValueError:
                        raise FeatureError(f"{view.name}: its stamp {UNREADABLE}") from None
                    verdicts[stamp] = _state(age, self._ttls[place]), age * 1e-6
                if len(verdicts) == 1:
                    states[place], ages[place] = verdict = verdicts[stamps[0]]
                    is_fresh = verdict[0] == _FRESH
                else:
                    states[place] = [verdicts[stamp][0] for stamp in stamps]
                    ages[place] = [verdicts[stamp][1] for stamp in stamps]
                    is_fresh = False
                if not is_fresh:
                    for row, stamp in zip(rows, stamps, strict=True):
                        if verdicts[stamp][0] != _FRESH:
                            row[columns] = blank
                place += 1


def _state(age: float, ttl: float) -> int:
    """Of a row of so many microseconds; NaN if there is none."""
    if 0 <= age <= ttl:
        return _FRESH
    return _MISSING if isnan(age) else _STALE


def _places(wanted: Sequence[str], there: Sequence[str]) -> list[int] | None:
    """Where the wanted names are; None if they are all there is, in order."""
    return None if list(wanted) == list(there) else [there.index(name) for name in wanted]
