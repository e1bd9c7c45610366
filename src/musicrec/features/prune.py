"""Takes out of Redis what no reader may be served any more, so that its memory stays bounded.

Materializing writes the rows of entities that still play; the hash of one that has fallen silent
would stay for ever. Redis' own expiry is of the whole hash, in which every view of an entity
stands with a time-to-live of its own, so fields are deleted here, by the stamps beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

from musicrec.database.redis_address import RedisAddress
from musicrec.features import layout
from musicrec.features.cluster import connected
from musicrec.features.connection import Connection
from musicrec.features.resp import encoded
from musicrec.features.views import View

#: Keys that Redis looks at in one step of a scan, during which it serves nobody else.
SCAN_KEYS = 1000


def prune(
    project: str,
    views: Sequence[View],
    end: datetime,
    address: RedisAddress,
    on_progress: Callable[[int, int], None] | None = None,
) -> int:
    """Delete the rows whose time-to-live has passed at ``end``.

    Not for use while someone materializes: a row that is written between the look at its stamp
    and the deletion would be lost.

    Args:
        project: whose entities; those of other projects are left alone.
        views: those without a time-to-live are left alone.
        end: the moment readers ask for, or an earlier one.
        on_progress: told ``(keys seen, keys in all)``.

    Returns:
        How many rows.

    Raises:
        DatabaseError: Redis is lost or refuses.
    """
    groups = [_Group(keys, views, project, end) for keys in {view.join_keys for view in views}]
    pruned = seen = 0
    with connected(address) as nodes:
        total = sum(redis.ask(encoded(b"DBSIZE"), 1)[0] for redis in nodes.all)
        for redis in nodes.all:
            for found in _scan(redis):
                pruned += sum(group.prune(redis, found) for group in groups)
                seen += len(found)
                if on_progress:
                    on_progress(min(seen, total), total)
    return pruned


def _scan(redis: Connection) -> Iterator[list[bytes]]:
    """All keys of a server, some at a time."""
    cursor = b""
    while cursor != b"0":
        command = encoded(b"SCAN", cursor or b"0", b"COUNT", b"%d" % SCAN_KEYS)
        ((cursor, found),) = redis.ask(command, 1)
        yield found


class _Group:
    """The views of the same join keys: one hash holds a row of each."""

    def __init__(
        self, join_keys: tuple[str, ...], views: Sequence[View], project: str, end: datetime
    ) -> None:
        self._prefix = layout.key_prefix(join_keys)
        self._ids = len(join_keys)
        self._project = project.encode()
        self._stamp_fields: list[bytes] = []
        self._oldest: list[int] = []
        self._fields: list[tuple[bytes, ...]] = []
        for view in views:
            if view.join_keys == join_keys and view.ttl is not None:
                stamp_field = layout.timestamp_field(view.name)
                self._stamp_fields.append(stamp_field)
                self._fields.append((stamp_field, *layout.fields(view)))
                self._oldest.append(int((end - view.ttl).timestamp()) * 1_000_000_000)

    def prune(self, redis: Connection, found: Sequence[bytes]) -> int:
        keys = [key for key in found if self._is_ours(key)]
        if not keys or not self._stamp_fields:
            return 0
        looks = b"".join(encoded(b"HMGET", key, *self._stamp_fields) for key in keys)
        deletions = []
        for key, stamps in zip(keys, redis.ask(looks, len(keys)), strict=True):
            for stamp, oldest, fields in zip(stamps, self._oldest, self._fields, strict=True):
                if stamp is not None and layout.nanoseconds(stamp) < oldest:
                    deletions.append(encoded(b"HDEL", key, *fields))
        if deletions:
            redis.ask(b"".join(deletions), len(deletions))
        return len(deletions)

    def _is_ours(self, key: bytes) -> bool:
        """Whether the project begins just where the last id ends."""
        if not key.startswith(self._prefix):
            return False
        place = len(self._prefix)
        for _ in range(self._ids):
            place += 8 + int.from_bytes(key[place + 4 : place + 8], "little")
        return key[place:] == self._project
