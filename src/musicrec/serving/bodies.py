"""What callers send: the bodies of all requests, with their limits and examples.

Nothing is guessed at: a number in quotes is no number, an unknown key is refused, and a moment
names its time zone.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from musicrec.features.context import Context
from musicrec.serving.asking import Ask
from musicrec.serving.events import Event, Kind

MAX_CANDIDATES = 1000
MAX_K = 200
MAX_HISTORY = 1000

#: The years of a moment: what Postgres, Python and arithmetic on it can all hold.
_FIRST, _END = datetime(1970, 1, 1, tzinfo=UTC), datetime(3000, 1, 1, tzinfo=UTC)


def _within_years(moment: datetime) -> datetime:
    if not _FIRST <= moment < _END:
        raise ValueError("must be of the years 1970 to 2999, UTC")
    return moment.astimezone(UTC)


def _whole(number: Any) -> Any:
    """10.0 is a whole number, to JSON as to everybody."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


# The bounds stand within, or OpenAPI would not have them.
Hour = Annotated[int, Field(ge=0, le=23), BeforeValidator(_whole)]
Weekday = Annotated[int, Field(ge=0, le=6), BeforeValidator(_whole)]
NumTracks = Annotated[int, Field(ge=1, le=MAX_K), BeforeValidator(_whole)]
Milliseconds = Annotated[int, Field(ge=0, le=2**31 - 1), BeforeValidator(_whole)]

#: Text as Postgres can hold it.
Text = Annotated[str, Field(max_length=512, pattern=r"^[^\x00]*$")]
Id = Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[^\x00]+$")]
Moment = Annotated[
    AwareDatetime,
    AfterValidator(_within_years),
    Field(json_schema_extra={"pattern": r"^(19[7-9]\d|2\d{3})-"}),
]


class Body(BaseModel):
    """Of a request."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ContextBody(Body):
    """The moment the listener is in; leave out what is not known."""

    hour: Hour | None = Field(None, description="on the listener's clock")
    weekday: Weekday | None = Field(None, description="0 Monday .. 6 Sunday")
    device: Text | None = Field(None, examples=["android"])
    session: list[Id] | None = Field(
        None,
        max_length=MAX_HISTORY,
        description="track ids played so far in this session, in order",
    )

    def context(self) -> Context:
        return Context(self.hour, self.weekday, self.device, self.session)


def _nothing_known() -> ContextBody:
    return ContextBody.model_construct(hour=None, weekday=None, device=None, session=None)


class FeaturesBody(Body):
    """One listener and the tracks to look at."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "user_id": "42",
                    "track_ids": ["syn-000001", "syn-000002"],
                    "context": {"hour": 8, "weekday": 0, "device": "android", "session": []},
                }
            ]
        },
    )

    user_id: Id
    track_ids: list[Id] = Field(min_length=1, max_length=MAX_CANDIDATES)
    context: ContextBody = Field(default_factory=_nothing_known)
    as_of: Moment | None = Field(
        None, description="the moment to answer for; the server's own by default"
    )


def _whose(schema: dict[str, Any]) -> None:
    schema["anyOf"] = [
        {"required": [key], "properties": {key: {"type": kind}}}
        for key, kind in (("user_id", "string"), ("history", "array"))
    ]
    schema["examples"] = [
        {
            "user_id": "42",
            "k": 10,
            "context": {"hour": 8, "weekday": 0, "device": "android", "session": ["syn-000001"]},
            "exclude": ["syn-000007"],
            "seen": "keep",
        },
        {"history": ["syn-000001", "syn-000002", "syn-000003"], "k": 5},
    ]


class RecommendBody(Body):
    """Whom to recommend to: a listener of the dataset, or a history of somebody unknown."""

    model_config = ConfigDict(json_schema_extra=_whose)

    user_id: Id | None = Field(None, description="a listener of the dataset, or nobody known")
    history: list[Id] | None = Field(
        None,
        max_length=MAX_HISTORY,
        description="track ids, oldest first; with user_id, it follows what is stored of them",
    )
    k: NumTracks = Field(10, description="how many tracks")
    context: ContextBody = Field(default_factory=_nothing_known)
    exclude: list[Id] = Field([], max_length=MAX_HISTORY, description="never to recommend")
    seen: Literal["keep", "drop"] | None = Field(
        None, description="keep may recommend heard tracks; by default as the model was judged"
    )
    as_of: Moment | None = Field(
        None, description="the moment to answer for; the server's own by default"
    )

    @model_validator(mode="after")
    def _names_somebody(self) -> Self:
        if self.user_id is None and self.history is None:
            raise ValueError("give user_id, or a history, which may be empty")
        return self

    def ask(self, as_of: datetime | None) -> Ask:
        """The request, for the moment ``as_of`` unless it names one itself."""
        return Ask(
            user_id=self.user_id,
            history=tuple(self.history or ()),
            k=self.k,
            context=self.context.context(),
            exclude=tuple(self.exclude),
            seen=self.seen,
            as_of=self.as_of or as_of,
        )


class SimilarBody(Body):
    """One track, whose neighbours are wanted."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"track_id": "syn-000001", "k": 10}]},
    )

    track_id: Id
    k: NumTracks = Field(10, description="how many tracks")


class EventBody(Body):
    """Something a listener did with a track."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "user_id": "42",
                    "track_id": "syn-000001",
                    "kind": "listen",
                    "occurred_at": "2024-03-04T18:00:00Z",
                    "ms_played": 183000,
                    "device": "android",
                },
                {"user_id": "42", "track_id": "syn-000002", "kind": "like"},
            ]
        },
    )

    user_id: Id = Field(description="a new listener comes to be")
    track_id: Id = Field(description="a track of the dataset")
    kind: Kind
    occurred_at: Moment | None = Field(
        None, description="when the play began, or when it was said; now by default"
    )
    ms_played: Milliseconds | None = None
    device: Text | None = Field(None, examples=["android"])

    def event(self) -> Event:
        return Event(
            self.user_id,
            self.track_id,
            self.kind,
            self.occurred_at,
            self.ms_played,
            self.device,
        )
