"""What a ranker knows of each candidate, as one matrix; the same live and offline. No I/O in here.

Columns are named ``group__feature``: SASRec's word on the candidate, the listener's own plays, the
catalogue's, the columns of the feature store, the interest graph's affinity, and the sources. NaN
stands for what is not known, never 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from musicrec.features import context
from musicrec.features.views import STORED
from musicrec.serving.candidates import SOURCE_BITS, Candidates
from musicrec.serving.listening import Ints, Listening
from musicrec.serving.moment import Moment

Floats = NDArray[np.float32]

#: How many of the newest plays ``share_recent`` looks at.
RECENT = 20

_MICROSECONDS_PER_HOUR = 3_600_000_000

SASREC_COLUMNS = ("sasrec__score", "sasrec__place", "sasrec__gap")
LISTENING_COLUMNS = (
    "listening__plays",
    "listening__share",
    "listening__share_recent",
    "listening__plays_since",
    "listening__hours_since",
    "listening__skip_share",
    "listening__liked",
    "listening__in_session",
    "listening__session_plays",
    "listening__hours_idle",
    "listening__kept_plays",
    "listening__kept_tracks",
)
CATALOGUE_COLUMNS = ("catalogue__log_plays",)

#: The feature store's, in the order of the matrix that is handed in.
STORE_COLUMNS = tuple(column for view in STORED for column in view.columns) + context.COLUMNS

GRAPH_COLUMNS = ("graph__affinity",)
SOURCE_COLUMNS = tuple(f"source__{source}" for source in SOURCE_BITS)

#: All columns of the matrix, in order.
COLUMNS = (
    *SASREC_COLUMNS,
    *LISTENING_COLUMNS,
    *CATALOGUE_COLUMNS,
    *STORE_COLUMNS,
    *GRAPH_COLUMNS,
    *SOURCE_COLUMNS,
)


def ranking_features(
    candidates: Candidates,
    listening: Listening,
    moment: Moment,
    *,
    log_plays: Floats,
    store: Floats | None,
    affinity: Floats | None,
) -> Floats:
    """``(candidates, len(COLUMNS))`` float32.

    Args:
        candidates: of a request.
        listening, moment: of its listener.
        log_plays: ``(catalogue_size + 1,)`` of each item, ``log(1 + plays)``.
        store: ``(candidates, len(STORE_COLUMNS))``; None where nothing is known.
        affinity: ``(candidates,)``; None where the listener has no graph.
    """
    out = np.empty((len(candidates.items), len(COLUMNS)), np.float32)
    parts = (
        _of_sasrec(candidates.scores),
        _of_listening(candidates.items, listening, moment),
        log_plays[candidates.items, None],
        np.nan if store is None else store,
        np.nan if affinity is None else affinity[:, None],
        (candidates.sources[:, None] & np.array([*SOURCE_BITS.values()], np.uint8)) > 0,
    )
    column = 0
    for part, names in zip(parts, _GROUPS, strict=True):
        out[:, column : column + len(names)] = part
        column += len(names)
    return out


_GROUPS = (
    SASREC_COLUMNS,
    LISTENING_COLUMNS,
    CATALOGUE_COLUMNS,
    STORE_COLUMNS,
    GRAPH_COLUMNS,
    SOURCE_COLUMNS,
)


def _of_sasrec(scores: Floats) -> Floats:
    """Score, place among the candidates from 1, and how much the best one has more."""
    place = np.arange(1, len(scores) + 1, dtype=np.float32)
    return np.stack([scores, place, scores[:1] - scores], axis=1)


def _of_listening(items: Ints, listening: Listening, moment: Moment) -> Floats:
    """What the listener's newest plays, ``KEPT_PLAYS`` at most, say of each candidate."""
    plays, num = listening.items, len(listening)
    out = np.full((len(items), len(LISTENING_COLUMNS)), np.nan, np.float32)
    heard, place = np.unique(plays, return_inverse=True)
    out[:, 0] = out[:, 1] = out[:, 2] = 0
    out[:, 6] = np.isin(items, [*listening.liked])
    if moment.session is not None:
        out[:, 7] = moment.in_session(items)
        out[:, 8] = len(moment.session)
    out[:, 10], out[:, 11] = num, len(heard)
    if not num:
        return out
    if listening.times is not None:
        out[:, 9] = (moment.at - listening.times[-1]) / _MICROSECONDS_PER_HOUR
    found = np.minimum(np.searchsorted(heard, items), len(heard) - 1)
    rows = np.flatnonzero(heard[found] == items)
    found = found[rows]
    count = np.bincount(place, minlength=len(heard))
    newest = np.zeros(len(heard), np.int64)
    newest[place] = np.arange(num)  # the last of several assignments stands: that of the newest
    out[rows, 0] = count[found]
    out[rows, 1] = count[found] / num
    recent = np.bincount(place[-RECENT:], minlength=len(heard)) / min(num, RECENT)
    out[rows, 2] = recent[found]
    out[rows, 3] = num - 1 - newest[found]
    if listening.times is not None:
        since = moment.at - listening.times[newest[found]]
        out[rows, 4] = since / _MICROSECONDS_PER_HOUR
    known = np.bincount(place, listening.skipped >= 0, minlength=len(heard))
    skips = np.bincount(place, listening.skipped == 1, minlength=len(heard))
    out[rows, 5] = np.divide(skips, known, out=np.full(len(heard), np.nan), where=known > 0)[found]
    return out
