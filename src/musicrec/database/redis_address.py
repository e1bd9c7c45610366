"""Where Redis is: ``FEAST_REDIS_HOST`` and its kin, or else the embedded server.

``FEAST_REDIS_PORT`` is 6379 if not given; ``FEAST_REDIS_PASSWORD`` and ``FEAST_REDIS_SSL``
(``true`` or ``false``) are for servers that ask for them. ``FEAST_REDIS_CLUSTER=true`` says that
the host is any node of a Redis Cluster.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from musicrec.errors import DatabaseError

PORT = 6379

_SWITCH = {"": False, "false": False, "0": False, "true": True, "1": True}


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """One Redis server, or any node of a cluster.

    Attributes:
        host: its name or number.
        port: its TCP port.
        password: None where it asks for none; stays out of the repr.
        ssl: whether it speaks TLS.
        is_embedded: whether the server is the project's own.
        is_cluster: whether keys are spread over the nodes of a Redis Cluster.
    """

    host: str
    port: int
    password: str | None = field(default=None, repr=False)
    ssl: bool = False
    is_embedded: bool = False
    is_cluster: bool = False

    @property
    def place(self) -> str:
        """``host:port`` for messages; never more than that."""
        return f"{self.host}:{self.port}"

    def failure(self, error: BaseException) -> DatabaseError:
        """What a failed or lost connection means, in one line and without the password."""
        reason = " ".join(str(error).split()) or type(error).__name__
        if self.password:
            reason = reason.replace(self.password, "***")
        way_out = (
            "run the command again"
            if self.is_embedded
            else "correct FEAST_REDIS_HOST and FEAST_REDIS_PORT, or unset both to use the "
            "embedded server"
        )
        return DatabaseError(f"no connection to Redis at {self.place}: {reason}; {way_out}")


def redis_address() -> RedisAddress:
    """``FEAST_REDIS_HOST`` where it is set, and then nothing is started; else the embedded server.

    Raises:
        DatabaseError: a variable cannot be read, or the embedded server cannot be started.
    """
    if named := _named():
        return named
    # Here, because where a server is named nothing needs the programs of the wheel.
    from musicrec.database import embedded_redis

    return embedded_redis.running_server()


def redis_address_if_running() -> RedisAddress | None:
    """As ``redis_address``, but None instead of starting the embedded server.

    Raises:
        DatabaseError: a variable cannot be read.
    """
    if named := _named():
        return named
    from musicrec.database import embedded_redis

    return embedded_redis.address_if_running()


def _named() -> RedisAddress | None:
    """The server that the environment names; None where it names none."""
    host, port, password, ssl, cluster = (
        os.environ.get(f"FEAST_REDIS_{name}", "").strip()
        for name in ("HOST", "PORT", "PASSWORD", "SSL", "CLUSTER")
    )
    if host:
        return RedisAddress(
            _host(host),
            _port(port),
            password or None,
            _switch("SSL", ssl),
            is_cluster=_switch("CLUSTER", cluster),
        )
    if port or _switch("CLUSTER", cluster):
        given = f"PORT={port}" if port else f"CLUSTER={cluster}"
        raise DatabaseError(
            f"FEAST_REDIS_{given} without FEAST_REDIS_HOST; set both, or unset both to use the "
            "embedded server"
        )
    return None


def _host(text: str) -> str:
    """What a resolver will take: it raises no error of the network for others."""
    try:
        text.encode("idna")
    except UnicodeError:
        raise DatabaseError(f"FEAST_REDIS_HOST={text!r} is no name of a host") from None
    return text


def _port(text: str) -> int:
    if not text:
        return PORT
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 65536:
        raise DatabaseError(f"FEAST_REDIS_PORT={text!r} is no port; give a number up to 65535")
    return int(text)


def _switch(name: str, text: str) -> bool:
    if text.lower() not in _SWITCH:
        raise DatabaseError(f"FEAST_REDIS_{name}={text!r} is neither true nor false")
    return _SWITCH[text.lower()]
