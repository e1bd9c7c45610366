"""``POST /features``: what the feature store knows of a listener and some candidates, as numbers.

The body is read by pydantic and the answer written by orjson without a model of it in between: a
matrix of numbers needs no validation on its way out, and FastAPI's costs more than the read.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from musicrec.errors import FeatureError
from musicrec.features.context import Context
from musicrec.features.online import AsyncOnlineStore
from musicrec.features.plan import FeatureMatrix, State

MAX_CANDIDATES = 1000

Id = Annotated[str, Field(min_length=1, max_length=512)]


class ContextBody(BaseModel):
    """The moment the listener is in; leave out what is not known."""

    model_config = ConfigDict(extra="forbid")

    hour: int | None = Field(None, ge=0, le=23, description="on the listener's clock")
    weekday: int | None = Field(None, ge=0, le=6, description="0 Monday .. 6 Sunday")
    device: str | None = Field(None, max_length=512, examples=["android"])
    session: list[Id] | None = Field(
        None, max_length=1000, description="track ids played so far in this session, in order"
    )


class FeaturesBody(BaseModel):
    """One listener and the tracks to look at."""

    model_config = ConfigDict(
        extra="forbid",
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
    context: ContextBody = Field(default_factory=lambda: ContextBody.model_validate({}))
    as_of: AwareDatetime | None = Field(
        None, description="the moment to answer for; the server's own by default"
    )


class FeatureService:
    """Answers feature requests from the online store.

    Args:
        connect: opens the store; called at the first request, in the server's process.
        as_of: the moment every request is answered for unless it names one; None is now.
    """

    def __init__(
        self, connect: Callable[[], AsyncOnlineStore], as_of: datetime | None = None
    ) -> None:
        self._connect = connect
        self._as_of = as_of
        self._store: AsyncOnlineStore | None = None

    async def read(self, body: FeaturesBody) -> FeatureMatrix:
        """The feature matrix of the candidates, in their order; unreadable rows are unavailable."""
        if self._store is None:
            self._store = self._connect()
        given = body.context
        context = Context(given.hour, given.weekday, given.device, given.session)
        as_of = body.as_of or self._as_of or datetime.now(UTC)
        try:
            return await self._store.read(body.user_id, body.track_ids, context, as_of)
        except FeatureError as error:  # of what is in Redis: the body was checked before
            return self._store.plan.unavailable(str(error), body.track_ids, context)

    async def close(self) -> None:
        """Close the connections."""
        if self._store is not None:
            await self._store.close()
            self._store = None


def feature_routes(features: FeatureService) -> APIRouter:
    """The routes over ``features``."""
    router = APIRouter()

    @router.post("/features", openapi_extra=_openapi(), responses={200: _ANSWER, 422: _REFUSAL})
    async def read_features(request: Request) -> Response:
        """Features of one listener and up to 1,000 tracks, over all feature views.

        `values` has a row per track and a column per name in `columns`; null where `states` is
        not `fresh`, or where the feature itself is unknown. `states` tells for each view and
        track: `fresh`, `stale` (too old, or of after `as_of`), `missing` (nothing known) or
        `unavailable` (the store could not be read: `reason` says why, and the caller may go on
        without features). `age_seconds` tells how old each row is, null where there is none.
        """
        try:
            body = FeaturesBody.model_validate_json(await request.body())
        except ValidationError as error:
            problems = error.errors(include_url=False, include_context=False, include_input=False)
            return _json({"detail": problems}, 422)
        return _json(answer(body.track_ids, await features.read(body)))

    return router


def answer(track_ids: list[str], matrix: FeatureMatrix) -> dict[str, Any]:
    """The body of an answer, ready for orjson."""
    return {
        "track_ids": track_ids,
        "columns": matrix.columns,
        "values": matrix.values,
        "states": {
            view: [_STATES[state] for state in states]
            for view, states in zip(matrix.views, matrix.states.T.tolist(), strict=True)
        },
        "age_seconds": dict(zip(matrix.views, matrix.ages.T.tolist(), strict=True)),
        "reason": matrix.reason,
    }


_STATES = {int(state): state.name.lower() for state in State}


def _json(content: Any, status: int = 200) -> Response:
    body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, status, media_type="application/json")


def _openapi() -> dict[str, Any]:
    schema = FeaturesBody.model_json_schema(ref_template="#/components/schemas/{model}")
    context = schema.pop("$defs")["ContextBody"]
    schema["properties"]["context"] = context
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


_ANSWER: dict[str, Any] = {
    "description": "the features",
    "content": {
        "application/json": {
            "example": {
                "track_ids": ["syn-000001"],
                "columns": ["user_listening_stats__plays_7d"],
                "values": [[12.0]],
                "states": {"user_listening_stats": ["fresh"]},
                "age_seconds": {"user_listening_stats": [3600.0]},
                "reason": None,
            }
        }
    },
}

_REFUSAL: dict[str, Any] = {"description": "the body is not as it should be; `detail` says where"}
