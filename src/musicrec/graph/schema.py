"""What an interest graph is, and what a reply must be before it becomes one.

A *reply* speaks in the request's own names: evidence is ``e1``, ``e2``, … of the summary that was
sent. A *graph* is what is stored: evidence is tracks. Between the two stands ``graph_of``, which
believes nothing: kinds, terms, relations, moods, contexts and themes are closed sets, a genre must
be a known one, an artist must be the artist of a cited track, and every node must cite evidence
that was sent. So whatever a title says, nothing can be stored that the listening does not hold.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, StrictStr

Kind = Literal["genre", "artist", "mood", "era", "context", "theme"]

#: ``short``: of the last weeks; ``long``: there all along.
Term = Literal["short", "long"]

#: ``with``: listened to together; ``within``: the first is a part of the second;
#: ``leads_to``: the second grows as the first fades.
Relation = Literal["with", "within", "leads_to"]

MOODS = (
    "angry",
    "calm",
    "dark",
    "dreamy",
    "energetic",
    "happy",
    "melancholic",
    "romantic",
    "tense",
    "warm",
)

CONTEXTS = ("morning", "daytime", "evening", "night", "weekend", "workday", "on the move")

#: What somebody's listening is about, beyond genres; docs/interest-graph.md says what each means.
THEMES = (
    "album listening",
    "background listening",
    "comfort listening",
    "current hits",
    "deep catalogue",
    "discovery",
    "instrumental",
    "live and acoustic",
    "nostalgia",
    "party",
    "vocal",
    "world of one artist",
)

ERAS = tuple(f"{decade}s" for decade in range(1900, 2030, 10))

MAX_NODES, MAX_RELATIONS, MAX_EVIDENCE, MAX_LABEL = 40, 80, 12, 80

Weight = Annotated[float, Field(ge=0, le=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ReplyNode(_Strict):
    """One interest, as a provider puts it."""

    id: StrictStr
    kind: Kind
    label: StrictStr
    weight: StrictFloat | StrictInt = Field(description="0 to 1: its share of what is listened to")
    term: Term
    evidence: list[StrictStr] = Field(description="ids of summary rows, such as e3; at least one")


class ReplyRelation(_Strict):
    """How two interests go together."""

    source: StrictStr = Field(description="id of a node")
    target: StrictStr = Field(description="id of another node")
    kind: Relation
    weight: StrictFloat | StrictInt = Field(description="0 to 1")


class Reply(_Strict):
    """What a provider must answer; ``Reply.model_json_schema()`` is what it is asked for.

    The schema bears no ranges and no lengths, which the SDKs would drop: ``graph_of`` checks them.
    """

    nodes: list[ReplyNode]
    relations: list[ReplyRelation]


class Evidence(_Strict):
    """A track of the user's listening that supports a node."""

    track_id: str
    title: str | None
    artist: str | None
    plays: int
    last_played_at: str
    """ISO, UTC."""


class Node(_Strict):
    """One interest."""

    kind: Kind
    label: str
    weight: Weight
    term: Term
    evidence: tuple[Evidence, ...]


class Edge(_Strict):
    """A relation between two nodes, by their places in ``InterestGraph.nodes``."""

    source: int
    target: int
    kind: Relation
    weight: Weight


class InterestGraph(_Strict):
    """What a listener cares about; nodes by falling weight, then kind and label."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    heard_until: str | None = None
    """The last play it was made of, ISO, UTC; None of graphs made before this was kept.

    Evidence does not tell: what is *not* cited was played too.
    """
