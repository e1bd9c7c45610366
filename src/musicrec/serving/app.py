"""The project's one HTTP app; each capability adds its routes.

Nothing is opened before the server starts, so that a process that forks workers shares nothing
with them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Response

from musicrec.serving.feature_routes import FeatureService, feature_routes


def create_app(features: FeatureService) -> FastAPI:
    """The app.

    Args:
        features: what answers ``/features``; closed when the server stops.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await features.close()

    app = FastAPI(title="musicrec", lifespan=lifespan)

    @app.get("/livez", status_code=204, response_class=Response)
    async def livez() -> None:
        """Whether the process answers at all."""

    app.include_router(feature_routes(features))
    return app
