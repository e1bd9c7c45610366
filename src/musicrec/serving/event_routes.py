"""``POST /events``: what a listener did, to count from their next answer on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, HTTPException, Request, Response

from musicrec.errors import DataError
from musicrec.serving.answers import OF_BODY, EventAnswer, answers
from musicrec.serving.bodies import EventBody
from musicrec.serving.exchange import body_of, read, written
from musicrec.serving.measures import Measures

if TYPE_CHECKING:
    from musicrec.serving.recommending import RecommendService


def event_routes(service: RecommendService, measures: Measures) -> APIRouter:
    """The routes over ``service``; ``measures`` count the events."""
    router = APIRouter(tags=["listeners"])

    @router.post(
        "/events",
        openapi_extra=body_of(EventBody),
        responses=answers(EventAnswer, "the event is written", *OF_BODY, 503),
    )
    async def record_event(request: Request) -> Response:
        """A listen, a skip, a like or a dislike; the listener's next answer knows of it.

        Sent again it changes nothing: its listener, moment and track are its name. A skip of the
        moment of a listen makes a skip of it. A track that was skipped is not recommended for the
        rest of the session, a disliked one not at all.
        """
        body = await read(request, EventBody)
        try:
            recorded = await service.record(body.event())
        except DataError as error:
            raise HTTPException(422, str(error)) from None
        if recorded.is_new:
            measures.event(body.kind)
        return written(recorded)

    return router
