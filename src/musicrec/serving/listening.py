"""What is known of a listener when a recommendation is asked for.

The same from the service, which reads it live, and from an offline evaluation, which cuts it from a
history: whatever is made of it is then the same too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

#: Plays kept of a listener: what a request reads and what features count. The newest win.
KEPT_PLAYS = 500


@dataclass(frozen=True, slots=True)
class Listening:
    """One listener's plays before some moment, of tracks that the model knows.

    Attributes:
        items: ``(plays,)`` item indices, oldest first; at most ``KEPT_PLAYS``, the newest.
        times: ``(plays,)`` microseconds since 1970, UTC, of each; None where only the order is
            known.
        skipped: ``(plays,)`` int8, 1 skipped, 0 not, -1 not known.
        heard: ``(tracks,)`` item indices of all that was ever heard, each once; read only where
            heard tracks are to be dropped, else those of ``items``.
        liked, disliked: item indices of the tracks of which the listener said so.
        unknown: outside ids that the model does not know, in order; left out of account.
    """

    items: Ints
    times: Ints | None
    skipped: NDArray[np.int8]
    heard: Ints
    liked: frozenset[int] = field(default=frozenset())
    disliked: frozenset[int] = field(default=frozenset())
    unknown: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.items)


def listening_of_items(
    items: NDArray[np.integer],
    times: Ints | None,
    skipped: NDArray[np.int8] | None = None,
    *,
    heard: Ints | None = None,
    liked: Iterable[int] = (),
    disliked: Iterable[int] = (),
    unknown: tuple[str, ...] = (),
) -> Listening:
    """The listening of some plays, oldest first; of more than ``KEPT_PLAYS`` the newest.

    Args:
        items: ``(plays,)`` item indices, none of them 0.
        times: ``(plays,)`` of each, rising; None where only the order is known.
        skipped: ``(plays,)``; None: not known of any.
        heard: all ever heard, where that is more than ``items`` and heard tracks are dropped.
        liked, disliked, unknown: as in ``Listening``.
    """
    if heard is None:
        heard = np.unique(items).astype(np.int64)
    newest = slice(max(0, len(items) - KEPT_PLAYS), None)
    if skipped is None:
        skipped = np.full(len(items), -1, np.int8)
    return Listening(
        items=np.asarray(items[newest], np.int64),
        times=None if times is None else times[newest],
        skipped=skipped[newest],
        heard=heard,
        liked=frozenset(liked),
        disliked=frozenset(disliked),
        unknown=unknown,
    )
