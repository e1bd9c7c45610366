"""``scripts/serve.py``: the HTTP service.

The process that people start reads the settings and holds the embedded servers; the workers that
uvicorn starts from it import neither Hydra nor Feast, and are told what to do by one variable.
"""

from __future__ import annotations

import json
import os
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from musicrec.cli import door, flags
from musicrec.cli.moments import moment
from musicrec.errors import ConfigError

if TYPE_CHECKING:
    from fastapi import FastAPI

#: What the workers are told, as JSON; no secret is in it.
_ORDERS = "MUSICREC_SERVE"


def serve(config: DictConfig) -> None:
    """Check everything that a person can mend, then answer until stopped."""
    if config.dataset is None:
        raise ConfigError("whose features? say dataset=NAME")
    if config.workers < 1:
        raise ConfigError(f"workers={config.workers} must be at least 1")
    if config.timeout_seconds <= 0:
        raise ConfigError(f"timeout_seconds={config.timeout_seconds} must be above 0")
    as_of = None if config.as_of is None else moment("as_of", config.as_of)
    try:
        import uvicorn
    except ImportError as error:
        raise ConfigError(f"no HTTP server here ({error}); install musicrec[serve]") from error
    os.environ[_ORDERS] = json.dumps(
        {
            "dataset": str(config.dataset),
            "features": _features(str(config.dataset), str(config.service)),
            "as_of": None if as_of is None else as_of.isoformat(),
            "timeout_seconds": config.timeout_seconds,
        }
    )
    uvicorn.run(
        "musicrec.cli.serve:application",
        factory=True,
        host=config.host,
        port=config.port,
        workers=config.workers,
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
    )


def _features(dataset: str, service: str) -> dict[str, tuple[str, ...]]:
    """The features to read, by view, as the registry has the service."""
    from musicrec.database.engine import open_dataset
    from musicrec.database.redis_address import redis_address
    from musicrec.features import repository

    redis = redis_address()
    # The workers find the server that this process holds, and no Redis is started twice.
    if redis.is_embedded:
        os.environ["FEAST_REDIS_HOST"] = redis.host
        os.environ["FEAST_REDIS_PORT"] = str(redis.port)
        if redis.password:
            os.environ["FEAST_REDIS_PASSWORD"] = redis.password
    with open_dataset(dataset) as opened:
        return repository.service_columns(repository.open_store(opened, redis), service)


def application() -> FastAPI:
    """The app of one worker, as ``serve`` has ordered it."""
    from musicrec.serving.app import create_app
    from musicrec.serving.feature_routes import FeatureService

    orders = json.loads(os.environ[_ORDERS])
    as_of = orders["as_of"] and datetime.fromisoformat(orders["as_of"])
    return create_app(FeatureService(partial(_online_store, orders), as_of))


def _online_store(orders: dict[str, Any]) -> Any:
    from musicrec.database.redis_address import redis_address
    from musicrec.features.online import AsyncOnlineStore
    from musicrec.features.plan import ReadPlan

    plan = ReadPlan(orders["dataset"], orders["features"])
    return AsyncOnlineStore(plan, redis_address(), orders["timeout_seconds"])


def main() -> None:
    door.run("serve", serve, flags.SERVE)
