"""Who may ask, how often, and how much at once."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from hashlib import sha256
from math import ceil
from time import time

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter
from starlette.types import Scope

from musicrec.errors import ConfigError

#: Holds the API key, or several between commas, so that one can be replaced without a pause.
API_KEY = "MUSICREC_API_KEY"

#: What anybody may ask for who is to find out whether the service lives.
OPEN_PATHS = frozenset({"/livez", "/readyz"})


class Keys:
    """The keys that let somebody in; without one, everybody is let in.

    Args:
        keys: as a caller sends them.
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        # Digests are of one length, so that a comparison tells nothing of a key's.
        self._digests = [_digest(key.encode()) for key in keys]

    @classmethod
    def read(cls, text: str | None) -> Keys:
        """The keys of ``MUSICREC_API_KEY``; unset or empty is none.

        Raises:
            ConfigError: it is not empty and yet holds no key, which would let everybody in.
        """
        if text is None or not text.strip():
            return cls()
        keys = [key.strip() for key in text.split(",") if key.strip()]
        if not keys:
            raise ConfigError(f"{API_KEY} holds commas and no key; unset it to let everybody in")
        if any(not key.isprintable() or " " in key for key in keys):
            raise ConfigError(f"{API_KEY} holds a key with a space or control character")
        return cls(keys)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def caller(self, scope: Scope) -> str | None:
        """Which key a request bears, as a name that tells nothing of it; None for none of ours."""
        given = _given(scope)
        if given is None:
            return None
        digest = _digest(given)
        # Every key is compared, whichever fits: the time taken tells nothing.
        fits = [hmac.compare_digest(digest, ours) for ours in self._digests]
        return f"key {fits.index(True)}" if any(fits) else None


def _digest(key: bytes) -> bytes:
    return sha256(key).digest()


def _given(scope: Scope) -> bytes | None:
    for name, value in scope["headers"]:
        if name == b"x-api-key":
            return bytes(value)
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            return bytes(value[7:].strip())
    return None


class RateLimit:
    """So many requests of one caller within any minute; each worker counts for itself.

    Args:
        per_minute: requests.
    """

    def __init__(self, per_minute: int) -> None:
        self._item = RateLimitItemPerMinute(per_minute)
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    async def seconds_to_wait(self, caller: str) -> int:
        """Counts a request; 0 where it is within the limit, else when to come again."""
        if await self._limiter.hit(self._item, caller):
            return 0
        window = await self._limiter.get_window_stats(self._item, caller)
        return max(1, ceil(window.reset_time - time()))
