"""A request for recommendations and its answer, as the rooms of the service pass them on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from musicrec.features.context import Context

#: What an answer rests on, from everything down to nothing of the listener.
Rung = Literal["full", "no_graph", "no_features", "no_postgres", "popularity"]

#: Where a candidate comes from.
Source = Literal["sasrec", "repeat", "popular", "graph", "explore"]


#: A part that an answer may have to do without.
DegradedPart = Literal["graph", "features", "postgres"]


@dataclass(frozen=True, slots=True)
class Ask:
    """One request; every id is an outside id.

    Attributes:
        user_id: whose listening Postgres and the feature store are asked for; or
        history: of somebody unknown, oldest first. With both, ``history`` follows what is stored.
        k: how many tracks.
        context: the moment; what is None is not known.
        exclude: never to recommend.
        seen: ``keep`` may recommend heard tracks, ``drop`` does not; None: as the model was judged.
        as_of: answer as of then.
    """

    user_id: str | None
    history: tuple[str, ...] = ()
    k: int = 10
    context: Context = field(default_factory=Context)
    exclude: tuple[str, ...] = ()
    seen: Literal["keep", "drop"] | None = None
    as_of: datetime | None = None


@dataclass(frozen=True, slots=True)
class Degraded:
    """A part that an answer had to do without."""

    part: DegradedPart
    why: str


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One recommended track.

    Attributes:
        score: orders within one answer and means nothing beyond it.
        sources: what brought it in; the first is why it stands where it does.
        reasons: sentences without a full stop, each borne out by stored plays; plain text.
    """

    track_id: str
    title: str | None
    artist: str | None
    score: float
    sources: tuple[Source, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What is recommended, best first, and what it rests on.

    Attributes:
        degraded: what was missing and why; empty on the highest rung, and where a listener simply
            has no graph or no plays.
        unknown: ids of the history or session that the model does not know.
        stages: milliseconds that each stage took, in their order.
    """

    tracks: tuple[Suggestion, ...]
    rung: Rung
    degraded: tuple[Degraded, ...]
    unknown: tuple[str, ...]
    model_version: str
    as_of: datetime
    stages: Mapping[str, float]
