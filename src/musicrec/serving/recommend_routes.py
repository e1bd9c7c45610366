"""``POST /recommend``: what a listener would play next, and why."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response

from musicrec.serving.answers import OF_BODY, RecommendAnswer, answers
from musicrec.serving.asking import Answer
from musicrec.serving.bodies import RecommendBody
from musicrec.serving.entrance import SAID
from musicrec.serving.exchange import body_of, read, written
from musicrec.serving.measures import Measures

if TYPE_CHECKING:
    from musicrec.serving.recommending import RecommendService


def recommend_routes(
    service: RecommendService, measures: Measures, as_of: datetime | None
) -> APIRouter:
    """The routes over ``service``.

    Args:
        measures: are told of every answer.
        as_of: the moment every request is answered for unless it names one; None is now.
    """
    router = APIRouter(tags=["recommendations"])

    @router.post(
        "/recommend",
        openapi_extra=body_of(RecommendBody),
        responses=answers(RecommendAnswer, "recommended tracks", *OF_BODY, 503),
    )
    async def recommend(request: Request) -> Response:
        """What a listener of the dataset, or somebody with a given history, would play next.

        Whatever part is missing or slow costs an answer its best, never the answer: `rung` says
        what it rests on and `degraded` what it did without. A listener nobody knows is answered
        with what is popular.
        """
        body = await read(request, RecommendBody)
        answer = await service.recommend(body.ask(as_of))
        measures.answer(answer)
        request.scope[SAID].update(_said(answer))
        return written(answer)

    return router


def _said(answer: Answer) -> dict[str, object]:
    """What the log tells of an answer: nothing of whom it is for."""
    return {
        "rung": answer.rung,
        "degraded": [degraded.part for degraded in answer.degraded],
        "model": answer.model_version,
        "tracks": len(answer.tracks),
    }
