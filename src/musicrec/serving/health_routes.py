"""``/livez``, ``/readyz``, ``/metrics``: what those ask who keep the service running."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from musicrec.serving.answers import ReadinessAnswer
from musicrec.serving.exchange import written
from musicrec.serving.measures import Measures
from musicrec.serving.security import Keys

if TYPE_CHECKING:
    from musicrec.serving.engines import Engines


def health_routes(
    engines: Engines, parts: Callable[[], Mapping[str, str]], measures: Measures, keys: Keys
) -> APIRouter:
    """The routes.

    Args:
        engines: without one, the service is not ready.
        parts: how Postgres and Redis fare; they do not decide, for answers do without them.
        measures: are exposed.
        keys: who bears one, or anybody where there are none, is told paths and places.
    """
    router = APIRouter(tags=["health"])

    @router.get("/livez", status_code=204, response_class=Response)
    async def livez() -> None:
        """Whether the process answers at all."""

    @router.get(
        "/readyz",
        responses={
            200: {"model": ReadinessAnswer, "description": "recommendations can be asked for"},
            503: {"model": ReadinessAnswer, "description": "there is no model (yet)"},
        },
    )
    async def readyz(request: Request) -> Response:
        """Whether recommendations can be asked for, and how the parts of the service fare.

        It needs no key; without one where one is set, it says whether and not why.
        """
        engine = engines()
        said: dict[str, Any] = {"ready": engine is not None}
        if not keys or keys.caller(request.scope) is not None:
            said["model"] = {
                "version": None if engine is None else engine.version,
                "path": str(engines.path),
                "why": engines.reason or engines.refusal,
            }
            said["parts"] = parts()
        return written(said, 503 if engine is None else 200)

    @router.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}, "description": "Prometheus' text"}},
    )
    def metrics() -> Response:
        """Counts and times of all workers, for Prometheus."""
        return Response(measures.exposition(), media_type=CONTENT_TYPE_LATEST)

    return router
