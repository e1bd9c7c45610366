"""The features of all tracks of a catalogue, read from the online store once and held in memory.

A request that reads its candidates' rows from Redis asks for a hundred of them; here they are a
gather. The bytes are those that the store has, the states are judged at the moment of each request:
what comes of it is what ``OnlineStore`` says of the same rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from musicrec.database.redis_address import RedisAddress
from musicrec.errors import FeatureError
from musicrec.features.asked import MICROSECOND
from musicrec.features.cluster import Cluster
from musicrec.features.commands import Command
from musicrec.features.plan import State
from musicrec.features.replies import UNREADABLE, values_of
from musicrec.features.values import Stamps
from musicrec.features.views import STORED, View
from musicrec.features.wire import Wire

Ints = NDArray[np.int64]

#: The views that are held: what a track is, and how it fares.
VIEWS: tuple[View, ...] = tuple(view for view in STORED if view.entities == ("track",))
COLUMNS = tuple(column for view in VIEWS for column in view.columns)

#: Tracks asked for at once, beside requests and else, and how long Redis may take for them.
_FEW, _MANY = 100, 500
_CHUNK_SECONDS = 10.0

_TTLS = np.array([v.ttl / MICROSECOND if v.ttl else np.inf for v in VIEWS])


@dataclass(frozen=True)
class HeldTracks:
    """What the online store had of a catalogue's tracks; row 0 is padding, of which it has nothing.

    Attributes:
        values: ``(catalogue_size + 1, len(COLUMNS))`` float32 as stored, fresh or not.
        stamps: ``(catalogue_size + 1, len(VIEWS))`` microseconds since 1970; NaN where no row is.
    """

    values: NDArray[np.float32] = field(repr=False)
    stamps: NDArray[np.float64] = field(repr=False)

    def at(
        self, items: Ints, now: float
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.float32]]:
        """Values, states and ages of some items, as a ``FeatureMatrix`` has them.

        Args:
            items: ``(n,)`` item indices.
            now: microseconds since 1970: the moment to answer for.
        """
        age = now - self.stamps[items]
        states = np.full(age.shape, State.STALE, np.uint8)
        states[np.isnan(age)] = State.MISSING
        is_fresh = (age >= 0) & (age <= _TTLS)
        states[is_fresh] = State.FRESH
        values = self.values[items]
        column = 0
        for place, view in enumerate(VIEWS):
            width = len(view.columns)
            values[~is_fresh[:, place], column : column + width] = np.nan
            column += width
        return values, states, (age * 1e-6).astype(np.float32)


def read_tracks(
    project: str,
    track_ids: Sequence[str],
    address: RedisAddress,
    *,
    rest: float = 0.0,
    stopped: Callable[[], bool] = lambda: False,
) -> HeldTracks | None:
    """Read the rows of a catalogue's tracks.

    Args:
        project: Feast's: the dataset.
        track_ids: in the order of item indices.
        rest: seconds to sleep for each second of reading, so that others get their turn.
        stopped: asked between chunks.

    Returns:
        None where it was stopped.

    Raises:
        DatabaseError: Redis is not there, does not answer or refuses.
        FeatureError: something in Redis cannot be read.
    """
    import hiredis

    command = Command(project, {view: [f.name for f in view.features] for view in VIEWS})
    values = np.full((len(track_ids) + 1, len(COLUMNS)), np.float32("nan"))
    stamps = np.full((len(track_ids) + 1, len(VIEWS)), np.nan)
    known = Stamps()
    size = _FEW if rest else _MANY
    redis: Wire | Cluster = (Cluster if address.is_cluster else Wire)(address)
    try:
        for start in range(0, len(track_ids), size):
            if stopped():
                return None
            began = time.monotonic()
            chunk = [track_id.encode() for track_id in track_ids[start : start + size]]
            request = command.encode("", chunk)
            replies = redis.ask(request, len(chunk), began + _CHUNK_SECONDS)
            for reply in replies:
                if not isinstance(reply, list):
                    raise address.failure(ConnectionRefusedError(f"it says {reply}"))
            rows = slice(start + 1, start + 1 + len(chunk))
            for place, view in enumerate(VIEWS):
                stamps[rows, place] = _stamps(replies, known, view)
            values[rows] = values_of([command], replies, len(chunk), len(COLUMNS))
            time.sleep(rest * (time.monotonic() - began))
    except (OSError, hiredis.ProtocolError) as error:
        if isinstance(error, TimeoutError):
            error = TimeoutError(f"no answer within {_CHUNK_SECONDS:g} s")
        raise address.failure(error) from error
    finally:
        redis.close()
    return HeldTracks(values, stamps)


def _stamps(replies: Sequence[list[bytes | None]], known: Stamps, view: View) -> list[float]:
    """Those of one view, taken off the ends of the replies."""
    try:
        return [known[reply.pop()] for reply in replies]
    except ValueError:
        raise FeatureError(f"{view.name}: its stamp {UNREADABLE}") from None
