"""``scripts/serve.py``: the HTTP service.

The process that people start reads the settings and holds the embedded servers; the workers that
uvicorn starts from it (``worker``) do not import Feast, and are told what to do by one variable.
"""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from musicrec.cli import door, flags
from musicrec.cli.moments import moment
from musicrec.cli.worker import Orders
from musicrec.database.redis_address import RedisAddress
from musicrec.errors import ConfigError, FeatureError
from musicrec.registry.versions import resolve
from musicrec.serving.sharing import shared_figures

#: Names the model, where ``bundle=`` does not.
MODEL_PATH = "SEQUENTIAL_MODEL_PATH"

#: A worker that says nothing for so long hangs, and is replaced.
_WORKER_SECONDS = 60

#: What musicrec[serve] brings, and a worker cannot begin without.
_PACKAGES = (
    "fastapi",
    "httptools",
    "limits",
    "orjson",
    "prometheus_client",
    "psycopg_pool",
    "uvicorn",
    "uvloop",
)

#: How long a service that was told to end waits for callers: more than any answer takes, but who
#: never sends the rest of a body would keep it for ever.
_LAST_SECONDS = 5

#: setting -> (least, most, whether null switches it off)
_BOUNDS: dict[str, tuple[float, float, bool]] = {
    "workers": (1, 1024, False),
    "candidates": (50, 1000, False),
    "explore": (0, 0.5, False),
    "approximate_above": (1, 10**9, True),
    "budget_ms": (1, 10_000, False),
    "refresh_seconds": (1, 86_400, False),
    "watch_seconds": (0.1, 3600, False),
    "max_body_bytes": (1, 2**30, False),
    "rate_limit_per_minute": (1, 10**6, True),
}


def serve(config: DictConfig) -> None:
    """Check everything that a person can mend, then answer until stopped."""
    # Before numpy loads, here or in a worker: a worker to a core computes in one thread.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    _check(config)
    if missing := [name for name in _PACKAGES if find_spec(name) is None]:
        raise ConfigError(f"no HTTP server without {', '.join(missing)}; install musicrec[serve]")
    import uvicorn

    import musicrec.serving.security as security

    keys = security.Keys.read(os.environ.get(security.API_KEY))
    _check_place(str(config.host), config.port)
    signal.signal(signal.SIGTERM, _stop)
    with shared_figures():  # before Feast is loaded, which loads Prometheus' client
        orders = _orders(config)
        orders.give()
        print(_greeting(config, orders, has_key=bool(keys)), file=sys.stderr, flush=True)
        uvicorn.run(
            "musicrec.cli.worker:application",
            factory=True,
            host=config.host,
            port=config.port,
            workers=config.workers,
            loop="uvloop",
            http="httptools",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_LAST_SECONDS,
            # Of a worker that is busy loading, uvicorn's five seconds would make one that is killed
            # before it ever answers.
            timeout_worker_healthcheck=_WORKER_SECONDS,
        )


def _check(config: DictConfig) -> None:
    for key in ("host", "port", "timeout_seconds", "log_requests"):
        if config[key] is None:
            raise ConfigError(f"{key}=null makes no sense; leave it out for the default")
    if not config.timeout_seconds > 0:
        raise ConfigError(f"timeout_seconds={config.timeout_seconds} must be above 0")
    for key, (least, most, may_be_null) in _BOUNDS.items():
        value = config[key]
        if value is None:
            if may_be_null:
                continue
            raise ConfigError(f"{key}=null makes no sense; leave it out for the default")
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ConfigError(f"{key}={value} is no number")
        if not value >= least:  # which a number that is none is not
            raise ConfigError(f"{key}={value} must be at least {least}")
        if value > most:
            raise ConfigError(f"{key}={value} must be at most {most}")
    if config.ranker not in (None, True, False):
        raise ConfigError(f"ranker={config.ranker} is not one of true, false, null")
    if config.as_of is not None:
        moment("as_of", config.as_of)


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


def _stop(*_: Any) -> None:
    """Uvicorn ends in good order and then hands on the signal, which would end us in none."""
    raise SystemExit(128 + signal.SIGTERM)


def _orders(config: DictConfig) -> Orders:
    dataset = None if config.dataset is None else str(config.dataset)
    features = None
    if dataset is not None:
        features = _dataset_ready(dataset, config.service)
    bundle = config.bundle or os.environ.get(MODEL_PATH, "").strip() or "model.pt"
    return Orders(
        bundle=str(resolve(str(bundle)).expanduser().absolute()),
        dataset=dataset,
        features=features,
        as_of=None if config.as_of is None else moment("as_of", config.as_of).isoformat(),
        timeout_seconds=config.timeout_seconds,
        candidates=config.candidates,
        ranker=config.ranker,
        explore=config.explore,
        approximate_above=config.approximate_above,
        budget_seconds=config.budget_ms / 1000,
        refresh_seconds=config.refresh_seconds,
        watch_seconds=config.watch_seconds,
        max_body_bytes=config.max_body_bytes,
        rate_limit_per_minute=config.rate_limit_per_minute,
        log_requests=config.log_requests,
    )


def _dataset_ready(dataset: str, service: str | None) -> dict[str, list[str]] | None:
    """The features to read, by view, as the registry has the service; None without one.

    The dataset has every migration then, and the workers find the embedded servers running.
    """
    from musicrec.database.engine import open_dataset
    from musicrec.database.redis_address import redis_address

    with open_dataset(dataset) as opened:
        if service is None:
            return None
        from musicrec.features import repository

        redis = redis_address()
        if redis.is_embedded:
            _name_server(redis)
        try:
            store = repository.open_store(opened, redis)
            columns = repository.service_columns(store, str(service))
        except FeatureError as error:
            raise FeatureError(f"{error}; or serve without features: service=null") from error
    return {view: list(names) for view, names in columns.items()}


def _name_server(redis: RedisAddress) -> None:
    """Let the workers find the server that this process holds, and start none of their own."""
    os.environ.update(
        FEAST_REDIS_HOST=redis.host,
        FEAST_REDIS_PORT=str(redis.port),
        FEAST_REDIS_PASSWORD=redis.password or "",
        FEAST_REDIS_SSL="false",  # whatever it said was for a server that is not named
    )


def _greeting(config: DictConfig, orders: Orders, *, has_key: bool) -> str:
    """Where it answers, and what a person would want to know before others do."""
    host = f"[{config.host}]" if ":" in str(config.host) else config.host
    place = f"http://{host}:{config.port}"
    lines = [f"musicrec answers at {place} (described at {place}/docs); model: {orders.bundle}"]
    if not Path(orders.bundle).exists():
        lines.append(
            f"there is no model at {orders.bundle} yet: it is taken as soon as it is there; make "
            f"one with `make train`, or say which with bundle=PATH or {MODEL_PATH}"
        )
    if not has_key and not _is_loopback(str(config.host)):
        lines.append(f"whoever reaches {config.host} may ask: set MUSICREC_API_KEY")
    return "\n".join(lines)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def main() -> None:
    door.run("serve", serve, flags.SERVE)
