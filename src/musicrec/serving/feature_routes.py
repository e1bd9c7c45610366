"""``POST /features``: what the feature store knows of a listener and candidates, as numbers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from musicrec.errors import FeatureError
from musicrec.features.online import AsyncOnlineStore
from musicrec.features.plan import FeatureMatrix, State
from musicrec.serving.answers import OF_BODY, answers
from musicrec.serving.bodies import FeaturesBody
from musicrec.serving.exchange import body_of, read, written


class FeaturesAnswer(BaseModel):
    """Features of some tracks for one listener."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "track_ids": ["syn-000001"],
                    "columns": ["user_listening_stats__plays_7d"],
                    "values": [[12.0]],
                    "states": {"user_listening_stats": ["fresh"]},
                    "age_seconds": {"user_listening_stats": [3600.0]},
                    "reason": None,
                }
            ]
        }
    )

    track_ids: list[str]
    columns: list[str]
    values: list[list[float | None]] = Field(
        description="a row per track and a column per name; null where the view's state is not "
        "fresh, or where the feature itself is unknown"
    )
    states: dict[str, list[Literal["fresh", "stale", "missing", "unavailable"]]] = Field(
        description="of each view, for each track. stale: too old, or of after as_of; missing: "
        "nothing known; unavailable: the store could not be read, and reason says why"
    )
    age_seconds: dict[str, list[float | None]] = Field(
        description="of each view's row, for each track; null where there is none"
    )
    reason: str | None = Field(description="why views are unavailable; go on without them")


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
        context = body.context.context()
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

    @router.post(
        "/features",
        tags=["features"],
        openapi_extra=body_of(FeaturesBody),
        responses=answers(FeaturesAnswer, "the features", *OF_BODY),
    )
    async def features_of(request: Request) -> Response:
        """Features of one listener and up to 1,000 tracks, over all feature views."""
        body = await read(request, FeaturesBody)
        return written(answer(body.track_ids, await features.read(body)))

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
