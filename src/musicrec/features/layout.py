"""Feast's layout in Redis (entity key version 3), written and read without Feast.

One hash per entity: its key is the entity's join keys and ids, then the project; its fields are
4 bytes of murmur3 of ``view:feature`` with a protobuf ``Value`` each, and ``_ts:view`` with a
protobuf ``Timestamp``. Tests compare every byte with what Feast itself writes.

Source: feast 0.67, ``infra/online_stores/helpers.py`` and ``infra/key_encoding_utils.py``.
"""

from __future__ import annotations

import struct
from datetime import datetime

import mmh3

from musicrec.features.views import View

#: How Feast writes that an id is text: feast.types.ValueType.STRING.
STRING = struct.pack("<I", 2)
_FLOAT_TAG = b"\x35"  # Value.float_val, field 6, four bytes

#: A feature that is null: a Value in which nothing is set.
NULL = b""


def key_prefix(join_keys: tuple[str, ...]) -> bytes:
    """How the keys of all entities with these join keys begin; they are sorted."""
    parts = [struct.pack("<I", len(join_keys))]
    for name in sorted(join_keys):
        parts += [STRING, struct.pack("<I", len(name.encode())), name.encode()]
    return b"".join(parts)


def key(prefix: bytes, ids: tuple[str, ...], project: bytes) -> bytes:
    """The key of one entity.

    Args:
        prefix: ``key_prefix`` of its join keys.
        ids: in the order of the *sorted* join keys: track before user.
        project: Feast's project name.
    """
    parts = [prefix]
    for value in ids:
        encoded = value.encode()
        parts += [STRING, struct.pack("<I", len(encoded)), encoded]
    parts.append(project)
    return b"".join(parts)


def field(view: str, feature: str) -> bytes:
    """The hash field of one feature."""
    return struct.pack("<I", mmh3.hash(f"{view}:{feature}", signed=False))


def timestamp_field(view: str) -> bytes:
    """The hash field of a view's event timestamp."""
    return f"_ts:{view}".encode()


def fields(view: View) -> tuple[bytes, ...]:
    """Those of a view's features, in order."""
    return tuple(field(view.name, feature.name) for feature in view.features)


def value(number: float | None) -> bytes:
    """A float32 feature; None is null."""
    return NULL if number is None else _FLOAT_TAG + struct.pack("<f", number)


def timestamp(moment: datetime) -> bytes:
    """A moment to the microsecond, after 1970; UTC."""
    whole = int(moment.replace(microsecond=0).timestamp())
    nanos = moment.microsecond * 1000
    parts = [b"\x08" + _varint(whole) if whole else b""]
    if nanos:
        parts.append(b"\x10" + _varint(nanos))
    return b"".join(parts)


def nanoseconds(stamp: bytes) -> int:
    """What ``timestamp`` wrote, since 1970; 0 of what is cut off."""
    numbers = {0x08: 0, 0x10: 0}  # seconds, nanos
    place = 0
    while place < len(stamp):
        tag, shift = stamp[place], 0
        numbers[tag] = 0
        while True:
            place += 1
            if place == len(stamp):
                return 0
            numbers[tag] |= (stamp[place] & 0x7F) << shift
            if stamp[place] < 0x80:
                break
            shift += 7
        place += 1
    return numbers[0x08] * 1_000_000_000 + numbers[0x10]


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
