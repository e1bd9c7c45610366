"""One worker of the HTTP service: what its app is made of, as ``serve`` has ordered it."""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from fastapi import FastAPI

    from musicrec.database.engine import Dataset
    from musicrec.features.online import AsyncOnlineStore
    from musicrec.serving.engine import Engine, Surroundings
    from musicrec.serving.entrance import Rules
    from musicrec.serving.feature_routes import FeatureService
    from musicrec.serving.graph_routes import GraphService

#: What the workers are told, as JSON; no secret is in it.
_ORDERS = "MUSICREC_SERVE"


#: How long a thread may go on while others wait; Python's own is ten times that.
_SWITCH_SECONDS = 0.0005


@dataclass(frozen=True, slots=True)
class Orders:
    """The settings of the service, checked; ``configs/serve.yaml`` says what each means.

    Attributes:
        features: of ``/features``, by view; None where no features are read.
        as_of: ISO, UTC.
    """

    bundle: str
    dataset: str | None
    features: Mapping[str, Sequence[str]] | None
    as_of: str | None
    timeout_seconds: float
    candidates: int
    ranker: bool | None
    explore: float
    approximate_above: int | None
    budget_seconds: float
    refresh_seconds: float
    watch_seconds: float
    max_body_bytes: int
    rate_limit_per_minute: int | None
    log_requests: bool

    def give(self) -> None:
        """Let processes that this one starts, and this one, take them."""
        os.environ[_ORDERS] = json.dumps(asdict(self))

    @classmethod
    def taken(cls) -> Self:
        return cls(**json.loads(os.environ[_ORDERS]))


def application() -> FastAPI:
    """The app of one worker."""
    import torch

    from musicrec.serving.app import Services, create_app
    from musicrec.serving.engines import Engines
    from musicrec.serving.logs import log_lines
    from musicrec.serving.measures import Measures
    from musicrec.serving.recommending import RecommendService

    torch.set_num_threads(1)  # a worker to a core: more threads would only fight over them
    # A model is opened by a thread of Python beside the requests: each gets its turn sooner.
    sys.setswitchinterval(_SWITCH_SECONDS)
    log_lines()
    orders, measures = Orders.taken(), Measures()
    dataset = _dataset(orders)
    as_of = None if orders.as_of is None else datetime.fromisoformat(orders.as_of)
    surroundings = _surroundings(orders, dataset)
    engines = Engines(
        Path(orders.bundle),
        partial(_opened, surroundings=surroundings),
        measures,
        watch_seconds=orders.watch_seconds,
    )
    services = Services(
        engines=engines,
        recommender=RecommendService(
            engines,
            dataset=dataset,
            redis=surroundings.redis,
            budget_seconds=orders.budget_seconds,
            refresh_seconds=orders.refresh_seconds,
            as_of=as_of,
            measures=measures,
        ),
        features=_features(orders, as_of),
        graphs=_graphs(dataset),
        as_of=as_of,
    )
    return create_app(services, _rules(orders), measures)


def _opened(path: Path, surroundings: Surroundings) -> Engine:
    """An engine, spared by the collector of garbage.

    Going through everything that is loaded takes 170 ms of everybody's time with a million tracks,
    now and then, and finds nothing: an engine that is replaced goes by its count of references.
    """
    from musicrec.serving.engine import open_engine

    engine = open_engine(path, surroundings)
    gc.freeze()
    return engine


def _dataset(orders: Orders) -> Dataset | None:
    """Not asked for: ``serve`` has done so, and a worker starts while Postgres is away."""
    from musicrec.database.engine import opened_dataset

    return None if orders.dataset is None else opened_dataset(orders.dataset)


def _surroundings(orders: Orders, dataset: Dataset | None) -> Surroundings:
    from musicrec.cli.interests import remembered_interests
    from musicrec.database.redis_address import redis_address
    from musicrec.serving.engine import Surroundings

    return Surroundings(
        dataset=dataset,
        redis=None if orders.features is None else redis_address(),
        interests_of=remembered_interests,
        num_candidates=orders.candidates,
        explore=orders.explore,
        ranker=orders.ranker,
        approximate_above=orders.approximate_above,
    )


def _features(orders: Orders, as_of: datetime | None) -> FeatureService | None:
    from musicrec.serving.feature_routes import FeatureService

    return None if orders.features is None else FeatureService(partial(_online, orders), as_of)


def _online(orders: Orders) -> AsyncOnlineStore:
    from musicrec.database.redis_address import redis_address
    from musicrec.features.online import AsyncOnlineStore
    from musicrec.features.plan import ReadPlan

    assert orders.dataset is not None
    assert orders.features is not None
    plan = ReadPlan(orders.dataset, orders.features)
    return AsyncOnlineStore(plan, redis_address(), orders.timeout_seconds)


def _graphs(dataset: Dataset | None) -> GraphService | None:
    from musicrec.cli.interests import StoredGraphs
    from musicrec.serving.graph_routes import GraphService

    return None if dataset is None else GraphService(StoredGraphs(dataset))


def _rules(orders: Orders) -> Rules:
    from musicrec.serving.entrance import Rules
    from musicrec.serving.security import API_KEY, Keys, RateLimit

    per_minute = orders.rate_limit_per_minute
    return Rules(
        keys=Keys.read(os.environ.get(API_KEY)),
        rate_limit=None if per_minute is None else RateLimit(per_minute),
        max_body_bytes=orders.max_body_bytes,
        logs_requests=orders.log_requests,
    )
