"""Takes a listener's features out of Redis: every entity of theirs, with whatever track.

A listener's own hash has a known key; those with a track are found by a scan of all keys, since
which tracks they played may be forgotten already. By the keys' own account of their ids, not by
the views of today: a view that is gone from the code may have left hashes behind.
"""

from __future__ import annotations

from collections.abc import Iterator

from musicrec.database.redis_address import RedisAddress
from musicrec.features.connection import Connection
from musicrec.features.prune import SCAN_KEYS
from musicrec.features.resp import encoded
from musicrec.features.views import JOIN_KEYS

_USER = JOIN_KEYS["user"].encode()
_MOST_KEYS = 16  # of one entity, in any project; more is no key of Feast's


def keys_of(project: str, user_id: str, address: RedisAddress) -> list[bytes]:
    """The keys of a listener's hashes.

    Args:
        project: Feast's, the dataset; those of other projects are left alone.

    Raises:
        DatabaseError: Redis is lost or refuses.
    """
    with Connection(address) as redis:
        return sorted(_found(redis, project.encode(), user_id.encode()))


def erase(project: str, user_id: str, address: RedisAddress) -> int:
    """Delete a listener's hashes; not while somebody materializes.

    Returns:
        How many.

    Raises:
        DatabaseError: Redis is lost or refuses.
    """
    erased = 0
    with Connection(address) as redis:
        keys = list(_found(redis, project.encode(), user_id.encode()))
        for start in range(0, len(keys), SCAN_KEYS):
            (count,) = redis.ask(encoded(b"DEL", *keys[start : start + SCAN_KEYS]), 1)
            erased += count
        if erased and address.is_embedded:
            # Its file of all that was ever written still holds them; a server of somebody else's
            # may forbid the command, or write none.
            redis.ask(encoded(b"BGREWRITEAOF"), 1)
    return erased


def _found(redis: Connection, project: bytes, user: bytes) -> Iterator[bytes]:
    pattern = b"*" + _literal(user) + b"*" + _literal(project)
    cursor, seen = b"0", set()
    while True:
        asked = encoded(b"SCAN", cursor, b"MATCH", pattern, b"COUNT", b"%d" % SCAN_KEYS)
        ((cursor, keys),) = redis.ask(asked, 1)
        for key in keys:
            if key not in seen and _is_of(key, project, user):
                seen.add(key)  # a scan may tell of a key twice
                yield key
        if cursor == b"0":
            return


def _is_of(key: bytes, project: bytes, user: bytes) -> bool:
    """Whether an entity's ids name the user and the project begins just where they end."""
    num_names = int.from_bytes(key[:4], "little")
    if not 0 < num_names <= _MOST_KEYS:
        return False
    words, place = [], 4
    for _ in range(2 * num_names):  # names, then ids; before each its type and its length
        size = int.from_bytes(key[place + 4 : place + 8], "little")
        words.append(key[place + 8 : place + 8 + size])
        place += 8 + size
    ids = dict(zip(words[:num_names], words[num_names:], strict=True))
    return key[place:] == project and ids.get(_USER) == user


def _literal(text: bytes) -> bytes:
    """As a pattern of Redis' that means nothing but itself."""
    return b"".join(b"\\" + bytes([c]) if c in b"*?[]^-\\" else bytes([c]) for c in text)
