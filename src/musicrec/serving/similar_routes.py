"""``POST /similar``: tracks that the model holds for like another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from fastapi import APIRouter, HTTPException, Request, Response

from musicrec.errors import ServingError
from musicrec.serving.answers import OF_BODY, SimilarAnswer, answers
from musicrec.serving.bodies import SimilarBody
from musicrec.serving.exchange import body_of, read, written
from musicrec.serving.similar import Neighbours

if TYPE_CHECKING:
    from musicrec.interactions.catalogue import Catalogue
    from musicrec.serving.engine import Engine


class SimilarService:
    """Looks for neighbours in a thread of its own, so that no other request waits.

    Args:
        engines: gives the engine that answers now; None where there is none.
    """

    def __init__(self, engines: Callable[[], Engine | None]) -> None:
        self._engines = engines
        self._thread = ThreadPoolExecutor(1, "similar")
        # An engine that was replaced goes, whether or not anybody asks for neighbours again.
        self._ready: WeakKeyDictionary[Engine, Neighbours] = WeakKeyDictionary()

    async def similar(self, body: SimilarBody) -> dict[str, Any]:
        """The answer's body.

        Raises:
            ServingError: there is no model.
            HTTPException: 404, the model does not know the track.
        """
        engine = self._engines()
        if engine is None:
            raise ServingError("there is no model yet; /readyz says why")
        catalogue = engine.bundle.catalogue
        known, _ = catalogue.indices([body.track_id])
        if not known:
            raise HTTPException(404, f"the model does not know track {body.track_id!r}")
        loop = asyncio.get_running_loop()
        near, cosines = await loop.run_in_executor(
            self._thread, lambda: self._neighbours(engine).of(known[0], body.k)
        )
        return {
            "track": _named(catalogue, known[0], 1.0),
            "tracks": [
                _named(catalogue, item, cosine)
                for item, cosine in zip(near.tolist(), cosines.tolist(), strict=True)
            ],
            "model_version": engine.version,
        }

    def _neighbours(self, engine: Engine) -> Neighbours:
        ready = self._ready.get(engine)
        if ready is None:
            # Not the table of scores: of it only the directions would matter, and they are these.
            ready = Neighbours(engine.bundle.model.item_embedding.weight.detach())
            self._ready[engine] = ready
        return ready

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _named(catalogue: Catalogue, item: int, score: float) -> dict[str, Any]:
    return {
        "track_id": catalogue.track_id(item),
        "title": catalogue.titles[item - 1],
        "artist": catalogue.artists[item - 1],
        "score": score,
    }


def similar_routes(service: SimilarService) -> APIRouter:
    """The routes over ``service``."""
    router = APIRouter(tags=["recommendations"])

    @router.post(
        "/similar",
        openapi_extra=body_of(SimilarBody),
        responses=answers(SimilarAnswer, "the nearest tracks", *OF_BODY, 404, 503),
    )
    async def similar_to(request: Request) -> Response:
        """Tracks whose embeddings point where that of the given one does, the nearest first."""
        return written(await service.similar(await read(request, SimilarBody)))

    return router
