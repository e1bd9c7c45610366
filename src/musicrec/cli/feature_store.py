"""``scripts/feature_store.py``: Feast's own command on a dataset, and the environment it needs.

Not a Hydra command: what follows the settings is Feast's, and handed on as it is.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Sequence

from musicrec.database.engine import Dataset, open_dataset
from musicrec.database.redis_address import RedisAddress, redis_address
from musicrec.errors import ConfigError, MusicrecError, nearest
from musicrec.features.environment import environment, folder
from musicrec.features.repository import require_feast

_SETTINGS = ("dataset", "show_secrets")
_USAGE = "python scripts/feature_store.py dataset=NAME [show_secrets=true] [apply | ui | …]"


def feature_store(arguments: Sequence[str]) -> None:
    """Print the environment, or become Feast's command in it.

    This process is then a user of the embedded servers, so they run as long as the command does.
    """
    settings, command = _split(arguments)
    with open_dataset(settings["dataset"]) as dataset:
        redis = redis_address()
        if not command:
            for line in exports(dataset, redis, show_secrets=settings["show_secrets"] == "true"):
                print(line)
            return
        os.environ.update(environment(dataset, redis))
        _become(command)


def exports(dataset: Dataset, redis: RedisAddress, *, show_secrets: bool) -> Iterator[str]:
    """The environment as a shell reads it.

    The password of an embedded Redis is no secret from whoever can run this: it is of no use
    elsewhere.
    """
    values = environment(dataset, redis)
    secrets = {"FEAST_POSTGRES_PASSWORD"} if values["FEAST_POSTGRES_PASSWORD"] else set()
    if redis.password and not redis.is_embedded:
        secrets.add("FEAST_REDIS_CONNECTION")
    yield f"# for Feast's own command, in {folder()}"
    if dataset.address.is_embedded or redis.is_embedded:
        yield "# embedded servers run only while somebody uses them; Feast's own command with both:"
        yield f"#   python scripts/feature_store.py dataset={dataset.name} apply"
    for name, value in values.items():
        if name in secrets and not show_secrets:
            yield f"# {name} holds a password; see it with show_secrets=true"
        else:
            yield f"export {name}={shlex.quote(value)}"


def _split(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Our settings, which come first, and Feast's command."""
    settings = {"show_secrets": "false"}
    rest = list(arguments)
    while rest and "=" in rest[0] and not rest[0].startswith("-"):
        key, _, value = rest.pop(0).partition("=")
        if key not in _SETTINGS:
            raise ConfigError(f"unknown setting {key!r}{nearest(key, _SETTINGS)}; {_USAGE}")
        settings[key] = value
    if not settings.get("dataset"):
        raise ConfigError(f"which dataset? {_USAGE}")
    if settings["show_secrets"] not in ("true", "false"):
        raise ConfigError(f"show_secrets={settings['show_secrets']} is neither true nor false")
    return settings, rest


def _become(command: Sequence[str]) -> None:
    require_feast()
    from feast.cli.cli import cli

    os.chdir(folder())
    sys.argv = ["feast", *command]
    cli()


def main() -> None:
    try:
        feature_store(sys.argv[1:])
    except MusicrecError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
