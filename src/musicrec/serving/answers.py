"""What callers get, for OpenAPI: answers are written as they are and pass through no model."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from musicrec.serving.asking import DegradedPart, Rung, Source


class TrackAnswer(BaseModel):
    """One track; title and artist are null where they are not known."""

    track_id: str
    title: str | None
    artist: str | None
    score: float = Field(description="orders within one answer and means nothing beyond it")


class SuggestionAnswer(TrackAnswer):
    """One recommended track."""

    sources: list[Source] = Field(
        description="what brought it in; the first is why it stands where it does"
    )
    reasons: list[str] = Field(
        description="each borne out by stored plays; plain text, not HTML, and titles are a "
        "listener's or a label's words"
    )


class DegradedAnswer(BaseModel):
    """A part that an answer had to do without."""

    part: DegradedPart
    why: str


class RecommendAnswer(BaseModel):
    """Recommended tracks, the best first, and what the answer rests on."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "tracks": [
                        {
                            "track_id": "syn-000123",
                            "title": "Slow Harbour",
                            "artist": "The Quiet Lamps",
                            "score": 3.2,
                            "sources": ["repeat", "sasrec"],
                            "reasons": ["you played it 7 times, last on 2024-03-02"],
                        }
                    ],
                    "rung": "full",
                    "degraded": [],
                    "unknown": [],
                    "model_version": "0123456789ab",
                    "as_of": "2024-03-04T18:00:00Z",
                    "stages": {"history": 1.2, "score": 3.4, "rank": 0.8},
                }
            ]
        }
    )

    tracks: list[SuggestionAnswer]
    rung: Rung = Field(description="what the answer rests on, from everything down")
    degraded: list[DegradedAnswer] = Field(
        description="empty where nothing was missing, and where a listener simply has no graph"
    )
    unknown: list[str] = Field(
        description="ids of the history or session that the model does not know; left out"
    )
    model_version: str
    as_of: datetime
    stages: dict[str, float] = Field(description="milliseconds that each stage took")


class SimilarAnswer(BaseModel):
    """Neighbours of a track, the nearest first."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "track": {
                        "track_id": "syn-000001",
                        "title": "Late Ferry",
                        "artist": "The Quiet Lamps",
                        "score": 1.0,
                    },
                    "tracks": [
                        {
                            "track_id": "syn-000123",
                            "title": "Slow Harbour",
                            "artist": "The Quiet Lamps",
                            "score": 0.91,
                        }
                    ],
                    "model_version": "0123456789ab",
                }
            ]
        }
    )

    track: TrackAnswer = Field(description="the one that was asked about")
    tracks: list[TrackAnswer] = Field(description="score is the cosine of their embeddings, -1..1")
    model_version: str


class EventAnswer(BaseModel):
    """An event is written, and counts from the listener's next answer on."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"occurred_at": "2024-03-04T18:00:00Z", "is_new": True}]}
    )

    occurred_at: datetime
    is_new: bool = Field(description="false if it was known: the same listener, moment and track")


class Provenance(BaseModel):
    """Who made a graph, of what, and at what cost."""

    provider: str
    model: str
    prompt_hash: str
    input_hash: str
    input_tokens: int
    output_tokens: int
    cost_usd: float | None = Field(description="null where the price was not known")
    created_at: datetime


class GraphVersionAnswer(BaseModel):
    """One version of a listener's graph, without what it says."""

    user_id: str
    version: int = Field(description="1 is the listener's first")
    is_current: bool
    valid_from: datetime
    valid_to: datetime | None = Field(description="null while it is current")
    provenance: Provenance


class EvidenceAnswer(BaseModel):
    """A track of the listener's plays that an interest rests on."""

    track_id: str
    title: str | None
    artist: str | None
    plays: int
    last_played_at: datetime


class NodeAnswer(BaseModel):
    """One interest."""

    kind: Literal["genre", "artist", "mood", "era", "context", "theme"]
    label: str
    weight: float = Field(description="0 to 1: its share of what is listened to")
    term: Literal["short", "long"] = Field(description="short: of the last weeks")
    evidence: list[EvidenceAnswer]


class EdgeAnswer(BaseModel):
    """How two interests go together; by their places in `nodes`, from 0."""

    source: int
    target: int
    kind: Literal["with", "within", "leads_to"]
    weight: float


class GraphAnswer(GraphVersionAnswer):
    """What a listener cares about, and the plays it rests on."""

    nodes: list[NodeAnswer]
    edges: list[EdgeAnswer]


class GraphVersionsAnswer(BaseModel):
    """Every version there was of a listener's graph, the first first."""

    versions: list[GraphVersionAnswer]


class ReadinessAnswer(BaseModel):
    """Whether recommendations can be asked for; the rest is shown to holders of a key only."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "ready": True,
                    "model": {"version": "0123456789ab", "why": None},
                    "parts": {"postgres": "asked", "redis": "asked"},
                }
            ]
        }
    )

    ready: bool
    model: dict[str, str | None] | None = Field(
        None, description="its version; or why there is none, and how to make one"
    )
    parts: dict[str, str] | None = Field(
        None, description="asked; resting, with why; or off, where no dataset is served"
    )


class Refusal(BaseModel):
    """Why a request got no answer."""

    detail: str | list[dict[str, Any]] = Field(
        description="in words; or, of a body, each problem with its place (loc) and reason (msg)"
    )


def answers(model: type[BaseModel], description: str, *refusals: int) -> dict[int | str, Any]:
    """What OpenAPI says of a route's answers.

    Args:
        model: of the good one.
        refusals: HTTP statuses of others, beside those of any request.
    """
    content: dict[str, Any] = {"model": model, "description": description}
    given = model.model_config.get("json_schema_extra")
    if isinstance(given, dict) and "examples" in given:
        examples: Any = given["examples"]
        content["content"] = {"application/json": {"example": examples[0]}}
    codes = sorted({*refusals, *_OF_ANY})
    said: dict[int | str, Any] = {200: content}
    said |= {code: {"model": Refusal, "description": _REFUSALS[code]} for code in codes}
    return said


_OF_ANY = (401, 429, 500)

_REFUSALS = {
    401: "no key, or a wrong one",
    404: "there is no such thing",
    413: "the body is too large",
    415: "the body is not said to be JSON",
    422: "the body is not as it should be; `detail` says where",
    429: "too many requests; Retry-After says when to come again",
    500: "a bug; the server's log says where, under the name in `detail`",
    503: "not just now; `detail` says why",
}

#: Statuses of a route that reads a body.
OF_BODY = (413, 415, 422)
