"""The project's one HTTP app; each capability adds its routes.

Nothing is opened before the server starts, so that a process that forks workers shares nothing
with them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response

from musicrec.errors import ServingError
from musicrec.serving.entrance import Entrance, Rules
from musicrec.serving.event_routes import event_routes
from musicrec.serving.exchange import Refused, refusal
from musicrec.serving.feature_routes import FeatureService, feature_routes
from musicrec.serving.graph_routes import GraphService, graph_routes
from musicrec.serving.health_routes import health_routes
from musicrec.serving.measures import Measures
from musicrec.serving.recommend_routes import recommend_routes
from musicrec.serving.similar_routes import SimilarService, similar_routes

if TYPE_CHECKING:
    from musicrec.serving.engines import Engines
    from musicrec.serving.recommending import RecommendService


@dataclass(frozen=True, slots=True)
class Services:
    """What answers; closed when the server stops.

    Attributes:
        engines: holds the model that answers now.
        recommender: answers ``/recommend`` and takes ``/events``.
        features: answers ``/features``; None where no features are read: then there is no such
            route.
        graphs: answers for interest graphs; None where no dataset is served: then there is no such
            route, and none for events.
        as_of: the moment every request is answered for unless it names one; None is now.
    """

    engines: Engines
    recommender: RecommendService
    features: FeatureService | None = None
    graphs: GraphService | None = None
    as_of: datetime | None = None


def create_app(services: Services, rules: Rules, measures: Measures) -> FastAPI:
    """The app.

    Args:
        services: what answers.
        rules: which requests are let in.
        measures: are told of every request.
    """
    similar = SimilarService(services.engines)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        services.engines.start()
        await services.recommender.open()
        yield
        similar.close()
        services.engines.close()
        await services.recommender.close()
        if services.graphs is not None:
            services.graphs.close()
        if services.features is not None:
            await services.features.close()

    app = FastAPI(
        title="musicrec",
        version=version("musicrec"),
        description=_DESCRIPTION,
        lifespan=lifespan,
        redoc_url=None,
    )
    app.add_middleware(Entrance, rules=rules, measures=measures)
    app.exception_handler(Refused)(_refused)
    app.exception_handler(ServingError)(_not_now)
    health = health_routes(services.engines, services.recommender.parts, measures, rules.keys)
    app.include_router(health)
    app.include_router(recommend_routes(services.recommender, measures, services.as_of))
    app.include_router(similar_routes(similar))
    if services.graphs is not None:
        app.include_router(event_routes(services.recommender, measures))
        app.include_router(graph_routes(services.graphs))
    if services.features is not None:
        app.include_router(feature_routes(services.features))
    _describe_keys(app)
    return app


_DESCRIPTION = """
Recommended tracks for listeners of a dataset, or for a history of somebody unknown.

Ids are those of the imported files. Moments name their time zone. Every error is
`{"detail": …}`. Where `MUSICREC_API_KEY` is set for the service, a key of it goes with every
request, as `Authorization: Bearer KEY` or `X-API-Key: KEY`.
"""


async def _refused(_: Request, error: Refused) -> Response:
    return refusal(422, error.problems)


async def _not_now(_: Request, error: ServingError) -> Response:
    return refusal(503, str(error), {"Retry-After": "1"})


def _describe_keys(app: FastAPI) -> None:
    """Say in OpenAPI how a key is sent, and that none is needed to ask whether it lives."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = plain()
            schema["components"]["securitySchemes"] = {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            }
            schema["security"] = [{"bearer": []}, {"key": []}, {}]
        return app.openapi_schema or {}

    app.openapi = described  # type: ignore[method-assign]
