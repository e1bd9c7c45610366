"""The moment of a request: when it is, and the session that is running.

What a request does not say is taken from the plays, as training does (``features.sessions``): the
hour and the weekday of UTC, and as the session the plays up to now of which none follows the last
after ``GAP`` or more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from musicrec.features.context import Context, context_features, is_mobile
from musicrec.features.sessions import GAP
from musicrec.serving.listening import Ints, Listening

GAP_MICROSECONDS = int(GAP.total_seconds() * 1_000_000)


@dataclass(frozen=True, slots=True)
class Moment:
    """When a listener is to be recommended something.

    Attributes:
        at: microseconds since 1970, UTC.
        hour, weekday: on the listener's clock where the request says, else on that of UTC.
        device: None where it is not known.
        session: items played so far in the running session, repeats included; None where it is
            not known.
        skipped: those of them that were skipped there.
    """

    at: int
    hour: int
    weekday: int
    device: str | None
    session: Ints | None
    skipped: frozenset[int]

    def context_columns(
        self, items: Ints, energy: NDArray[np.float32], energy_30d: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """``(items, features)`` of ``context_aware_features`` for some candidates.

        Args:
            items: the candidates.
            energy, energy_30d: ``(items,)`` the two ``context.STORED_INPUTS``; NaN if not known.
        """
        known = self.session is not None
        plays = len(self.session) if self.session is not None else np.nan
        return context_features(
            np.full(len(items), self.hour),
            np.full(len(items), self.weekday),
            np.full(len(items), is_mobile(self.device)),
            np.full(len(items), plays),
            self.in_session(items) if known else np.full(len(items), np.nan),
            energy,
            energy_30d,
        )

    def in_session(self, items: Ints) -> NDArray[np.bool_]:
        """``(items,)`` whether each was played in the session; none where there is none."""
        return np.isin(items, [] if self.session is None else self.session)


def moment_of(
    listening: Listening,
    as_of: datetime,
    given: Context,
    session: Sequence[int] | None = None,
) -> Moment:
    """The moment of a request.

    Args:
        listening: the plays before ``as_of``.
        as_of: with its time zone.
        given: what the request says of the moment; of it, hour, weekday and device are used.
        session: items played so far in this session, where the request says so.
    """
    utc = as_of.astimezone(UTC)
    at = microseconds(utc)
    running = _running(listening, at)
    skips = listening.items[running][listening.skipped[running] == 1]
    played: Ints | None = None
    if session is not None:
        played = np.asarray(session, np.int64)
    elif listening.times is not None:
        played = listening.items[running]
    return Moment(
        at=at,
        hour=utc.hour if given.hour is None else given.hour,
        weekday=utc.weekday() if given.weekday is None else given.weekday,
        device=given.device,
        session=played,
        skipped=frozenset(skips.tolist()),
    )


def microseconds(moment: datetime) -> int:
    """Since 1970 UTC."""
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _running(listening: Listening, at: int) -> slice:
    """The plays of the session that runs at a moment."""
    times = listening.times
    if times is None or not len(times):
        return slice(0, 0)
    breaks = np.flatnonzero(np.diff(times, append=at) >= GAP_MICROSECONDS)
    return slice(int(breaks[-1]) + 1 if len(breaks) else 0, len(times))
