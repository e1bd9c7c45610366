"""A small model, its dataset and its online features, for tests of the service without HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

from musicrec.database.address import Address
from musicrec.database.engine import Dataset
from musicrec.database.redis_address import RedisAddress
from musicrec.features import layout
from musicrec.features.connection import Connection
from musicrec.features.resp import encoded
from musicrec.features.views import View
from musicrec.serving.engine import Engine
from musicrec.serving.recommending import RecommendService

T = TypeVar("T")


def run(
    engine: Engine | None,
    ask: Callable[[RecommendService], Awaitable[T]],
    **settings: Any,
) -> T:
    """What ``ask`` gives, of a service on an event loop of its own: another worker each time."""

    async def served() -> T:
        service = RecommendService(lambda: engine, **settings)
        try:
            await service.open()
            if service._postgres is not None:
                await service._postgres._pool.wait(20)  # else the first request may find none
            return await ask(service)
        finally:
            await service.close()

    return asyncio.run(served())


def through(dataset: Dataset, port: int) -> Dataset:
    """The same dataset by a door at ``port``."""
    parameters = {**dataset.address.parameters, "host": "127.0.0.1", "port": str(port)}
    return replace(dataset, address=Address("the door", False, parameters))


def put_row(
    redis: RedisAddress,
    project: str,
    view: View,
    ids: tuple[str, ...],
    values: list[float],
    stamp: datetime,
) -> None:
    """One row of a view; ``ids`` in the order of its sorted join keys: track before user."""
    key = layout.key(layout.key_prefix(view.join_keys), ids, project.encode())
    pairs = [
        *zip(layout.fields(view), map(layout.value, values), strict=True),
        (layout.timestamp_field(view.name), layout.timestamp(stamp)),
    ]
    flat = [part for pair in pairs for part in pair]
    with Connection(redis) as connection:
        connection.ask(encoded(b"HSET", key, *flat) + encoded(b"EXPIRE", key, b"900"), 2)
