"""``GET /users/{user_id}/interest-graph``: what a listener cares about, with its evidence."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, HTTPException, Path, Response
from sqlalchemy.exc import DBAPIError

from musicrec.errors import DatabaseError, GraphError, ServingError
from musicrec.serving.answers import GraphAnswer, GraphVersionsAnswer, answers
from musicrec.serving.daemons import Daemons
from musicrec.serving.exchange import written
from musicrec.serving.interests import GraphPage

#: How long a reader of a graph waits for Postgres. Nobody listens meanwhile.
SECONDS = 2.0

#: Graphs read at the same time; others wait their turn.
_AT_ONCE = 4


T = TypeVar("T")

UserId = Annotated[str, Path(min_length=1, max_length=512, pattern=r"^[^\x00]+$")]


class GraphService:
    """Reads graphs in threads of its own: what Postgres holds up there holds up nothing else.

    Args:
        page: reads them; blocks.
        seconds: after which an answer is given up.
    """

    def __init__(self, page: GraphPage, seconds: float = SECONDS) -> None:
        self._page = page
        self._seconds = seconds
        self._threads = Daemons(_AT_ONCE, "graphs")

    async def current(self, user_id: str) -> Mapping[str, Any]:
        """A listener's current graph.

        Raises:
            ServingError: Postgres does not answer, or not in time, or the graph cannot be read.
            HTTPException: 404, there is none.
        """
        found = await self._read(self._page.current, user_id)
        if found is None:
            raise _missing()
        return found

    async def versions(self, user_id: str) -> Sequence[Mapping[str, Any]]:
        """Every version's number, times and provenance, the first first; errors as ``current``."""
        found = await self._read(self._page.versions, user_id)
        if not found:
            raise _missing()
        return found

    async def _read(self, reader: Callable[[str], T], user_id: str) -> T:
        reading = asyncio.wrap_future(self._threads.submit(partial(reader, user_id)))
        try:
            async with asyncio.timeout(self._seconds):
                return await reading
        except TimeoutError:
            raise ServingError(f"Postgres did not answer within {self._seconds:g} s") from None
        except (DatabaseError, DBAPIError):  # where the server is, is nobody's business outside
            raise ServingError("Postgres cannot be asked just now") from None
        except GraphError:
            raise ServingError(
                "the stored graph cannot be read; make it anew with generate_interest_graph.py"
            ) from None

    def close(self) -> None:
        """End the threads."""
        self._threads.close()


def _missing() -> HTTPException:
    return HTTPException(404, "there is no interest graph of this listener")


def graph_routes(service: GraphService) -> APIRouter:
    """The routes over ``service``."""
    router = APIRouter(tags=["listeners"])

    @router.get(
        # An id may hold a slash, written %2F, which is one again by the time it gets here.
        "/users/{user_id:path}/interest-graph",
        responses=answers(GraphAnswer, "the current graph", 404, 422, 503),
    )
    async def interest_graph(user_id: UserId) -> Response:
        """The listener's current interest graph: interests, what they rest on, who made it."""
        return written(await service.current(user_id))

    @router.get(
        "/users/{user_id:path}/interest-graph/versions",
        responses=answers(GraphVersionsAnswer, "every version, the first first", 404, 422, 503),
    )
    async def interest_graph_versions(user_id: UserId) -> Response:
        """Every version there was of the listener's graph: when, by whom and at what cost."""
        return written({"versions": await service.versions(user_id)})

    return router
