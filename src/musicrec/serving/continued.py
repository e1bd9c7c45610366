"""A listener's stored plays and what a request says of them, as one listening. No I/O in here."""

from __future__ import annotations

from collections import Counter

import numpy as np

from musicrec.serving.listening import Ints, Listening, listening_of_items
from musicrec.serving.moment import GAP_MICROSECONDS

NOBODY = listening_of_items(np.empty(0, np.int64), None)
"""Somebody of whom nothing is known."""


def continued(
    stored: Listening,
    history: Ints,
    session: Ints,
    at: int,
    *,
    unknown: tuple[str, ...] = (),
) -> Listening:
    """The stored plays, then those of the request, which are plays of just now.

    A caller may send the running session and have written it as events, too: what of it is among
    the stored plays of the session is not counted again.

    Args:
        stored: nobody's where nothing is stored. Plays of after ``at``, by a clock that goes ahead
            of ours, are taken to be of ``at``.
        history: item indices, oldest first; they follow what is stored.
        session: item indices played so far in the running session, in order.
        at: microseconds since 1970: now.
        unknown: outside ids of the request that the model does not know.
    """
    times = None if stored.times is None else np.minimum(stored.times, at)
    own = np.concatenate([history, _not_among(session, _newest(stored, history, session, at))])
    items = np.concatenate([stored.items, own])
    if len(stored) and times is not None:
        times = np.concatenate([times, np.full(len(own), at, np.int64)])
    elif len(own):
        times = None
    return listening_of_items(
        items,
        times,
        np.concatenate([stored.skipped, np.full(len(own), -1, np.int8)]),
        heard=np.union1d(stored.heard, own),
        liked=stored.liked,
        disliked=stored.disliked,
        unknown=unknown,
    )


def _newest(stored: Listening, history: Ints, session: Ints, at: int) -> Ints:
    """The plays among which those of the session may be."""
    if len(history) or stored.times is None:
        return np.concatenate([stored.items, history])[-len(session) :]
    times = np.minimum(stored.times, at)
    breaks = np.flatnonzero(np.diff(times, append=at) >= GAP_MICROSECONDS)
    return stored.items[int(breaks[-1]) + 1 if len(breaks) else 0 :]


def _not_among(session: Ints, plays: Ints) -> Ints:
    """The session's items, in order, less one for each time that they are among the plays."""
    left = Counter(plays.tolist())
    new = []
    for item in session.tolist():
        if left[item]:
            left[item] -= 1
        else:
            new.append(item)
    return np.array(new, np.int64)
