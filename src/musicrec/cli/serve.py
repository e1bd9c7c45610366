"""``scripts/serve.py``: the HTTP service.

The process that people start reads the settings and holds the embedded servers; the workers that
uvicorn starts from it do not import Feast, and are told what to do by one variable.
"""

from __future__ import annotations

import json
import os
import socket
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from musicrec.cli import door, flags
from musicrec.cli.moments import moment
from musicrec.database.redis_address import RedisAddress
from musicrec.errors import ConfigError

if TYPE_CHECKING:
    from fastapi import FastAPI

#: What the workers are told, as JSON; no secret is in it.
_ORDERS = "MUSICREC_SERVE"


def serve(config: DictConfig) -> None:
    """Check everything that a person can mend, then answer until stopped."""
    if config.dataset is None:
        raise ConfigError("whose features? say dataset=NAME")
    for key in ("host", "port", "workers", "timeout_seconds"):
        if config[key] is None:
            raise ConfigError(f"{key}=null makes no sense; leave it out for the default")
    if config.workers < 1:
        raise ConfigError(f"workers={config.workers} must be at least 1")
    if config.timeout_seconds <= 0:
        raise ConfigError(f"timeout_seconds={config.timeout_seconds} must be above 0")
    as_of = None if config.as_of is None else moment("as_of", config.as_of)
    try:
        import uvicorn
    except ImportError as error:
        raise ConfigError(f"no HTTP server here ({error}); install musicrec[serve]") from error
    _check_place(str(config.host), config.port)
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


def _check_place(host: str, port: int) -> None:
    """Refuse where nobody can listen before Feast is loaded, which takes seconds.

    Raises:
        ConfigError: the port is taken, or there is no such host or port here.
    """
    if not 0 <= port <= 65535:
        raise ConfigError(f"port={port} is none; say one up to 65535")
    try:
        family, *_, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        socket.create_server(where[:2], family=family).close()
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"cannot listen at {host}:{port}: {getattr(error, 'strerror', None) or error}; say "
            "another host= or port="
        ) from error


def _features(dataset: str, service: str) -> dict[str, tuple[str, ...]]:
    """The features to read, by view, as the registry has the service."""
    from musicrec.database.engine import open_dataset
    from musicrec.database.redis_address import redis_address
    from musicrec.features import repository

    redis = redis_address()
    if redis.is_embedded:
        _name_server(redis)
    with open_dataset(dataset) as opened:
        return repository.service_columns(repository.open_store(opened, redis), service)


def _name_server(redis: RedisAddress) -> None:
    """Let the workers find the server that this process holds, and start none of their own."""
    os.environ.update(
        FEAST_REDIS_HOST=redis.host,
        FEAST_REDIS_PORT=str(redis.port),
        FEAST_REDIS_PASSWORD=redis.password or "",
        FEAST_REDIS_SSL="false",  # whatever it said was for a server that is not named
    )


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
