"""The service's app in the test's own process, around a small model of drawn weights."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from musicrec.database.engine import Dataset
from musicrec.database.redis_address import RedisAddress
from musicrec.serving.app import Services, create_app
from musicrec.serving.engine import Surroundings, open_engine
from musicrec.serving.engines import Engines
from musicrec.serving.entrance import Rules
from musicrec.serving.feature_routes import FeatureService
from musicrec.serving.graph_routes import GraphService
from musicrec.serving.measures import Measures
from musicrec.serving.recommending import RecommendService


def app_of(
    bundle: Path,
    rules: Rules | None = None,
    *,
    dataset: Dataset | None = None,
    redis: RedisAddress | None = None,
) -> FastAPI:
    """The app; its model is at hand once it has started."""
    from musicrec.cli.interests import StoredGraphs, remembered_interests
    from musicrec.features.online import AsyncOnlineStore
    from musicrec.features.plan import ReadPlan

    measures = Measures()
    surroundings = Surroundings(dataset, redis, remembered_interests)
    engines = Engines(bundle, partial(open_engine, surroundings=surroundings), measures)
    features = graphs = None
    if dataset is not None:
        graphs = GraphService(StoredGraphs(dataset))
        if redis is not None:
            plan = ReadPlan(dataset.name)
            features = FeatureService(lambda: AsyncOnlineStore(plan, redis, 1.0))
    recommender = RecommendService(engines, dataset=dataset, redis=redis, measures=measures)
    engines.look()
    services = Services(engines, recommender, features, graphs)
    return create_app(services, rules or Rules(), measures)


@contextlib.contextmanager
def answering(app: FastAPI) -> Iterator[str]:
    """The app behind a real HTTP server in a thread; its address."""
    config = uvicorn.Config(app, port=0, log_level="warning", http="httptools", loop="uvloop")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started:
        assert thread.is_alive(), "the server has ended"
        assert time.monotonic() < deadline, "the server does not start"
        time.sleep(0.01)
    host, port = server.servers[0].sockets[0].getsockname()[:2]
    yield f"http://{host}:{port}"
    server.should_exit = True
    thread.join(30)
