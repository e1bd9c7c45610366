"""Where Feast's own folder is, and the environment that its ``feature_store.yaml`` needs."""

from __future__ import annotations

import json
import os
from pathlib import Path

from musicrec.database.engine import Dataset
from musicrec.database.home import home
from musicrec.database.redis_address import RedisAddress
from musicrec.errors import FeatureError

#: libpq's names of what Feast's offline store wants to know.
_POSTGRES = ("host", "port", "user", "password", "sslmode", "sslrootcert", "sslcert", "sslkey")


def folder() -> Path:
    """``feature_repo/``: inside the package when installed from a wheel, else at the top level."""
    package = Path(__file__).resolve().parents[1]
    packaged = package / "feature_repo"
    return packaged if packaged.is_dir() else package.parents[1] / "feature_repo"


def environment(dataset: Dataset, redis: RedisAddress) -> dict[str, str]:
    """What ``feature_store.yaml`` needs, passwords included.

    Args:
        dataset: becomes Feast's project of the same name.
        redis: the online store.

    Raises:
        DatabaseError: Postgres cannot be reached.
        FeatureError: Feast cannot write the address of Redis.
    """
    return {
        "MUSICREC_HOME": str(home()),
        "FEAST_PROJECT": dataset.name,
        "FEAST_REGISTRY": _registry_path(dataset.name),
        "FEAST_REDIS_TYPE": "redis_cluster" if redis.is_cluster else "redis",
        "FEAST_REDIS_CONNECTION": _redis_connection(redis),
        **_postgres(dataset),
        "PGTZ": "UTC",
    }


def _registry_path(project: str) -> str:
    """Of a file, whose folder is made; or an address such as ``s3://…``."""
    given = os.environ.get("FEAST_REGISTRY") or home() / "feast" / f"{project}.db"
    if "://" in str(given):
        return str(given)
    path = Path(given).expanduser().absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    return str(path)


def _postgres(dataset: Dataset) -> dict[str, str]:
    """As libpq has it from the URL, from its own variables and from its password file."""
    with dataset.address.connect() as connection:
        used = {o.keyword.decode(): (o.val or b"").decode() for o in connection.pgconn.info}
        info = connection.info
        # The one of several hosts that answered; the password that was asked for.
        used |= {"host": info.host, "port": str(info.port), "password": info.password}
    values = {f"FEAST_POSTGRES_{name.upper()}": used[name] for name in _POSTGRES}
    return {**values, "FEAST_POSTGRES_DATABASE": used["dbname"]}


def _redis_connection(redis: RedisAddress) -> str:
    """As Feast reads it: parts between commas, of which values are JSON if they can be."""
    if ":" in redis.host:
        raise FeatureError(f"Feast cannot use the address {redis.host}; give Redis' host a name")
    parts = [f"{redis.host}:{redis.port}", *(["ssl=true"] if redis.ssl else [])]
    if redis.password:
        parts.append("password=" + json.dumps(redis.password).replace(",", "\\u002c"))
    return ",".join(parts)
