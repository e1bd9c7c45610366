"""What is stored as numbers, whoever stored it.

We write float32 and nothing else; Feast's SDK, pushing by hand, may write any type that
holds a number. Source: feast 0.67, ``protos/feast/types/Value.proto``; a ``Value`` is a protobuf
message with one field set, or none for null.
"""

from __future__ import annotations

import struct

from musicrec.features import layout

_NULL_FIELD = 19
_INTEGERS = (3, 4)  # int32_val, int64_val
_BOOL = 7
_DOUBLE, _FLOAT = 0x29, 0x35  # double_val and float_val with their wire types: 8 and 4 bytes

#: Different stamps to remember; there is one per view and end of a window.
_REMEMBERED = 10_000


def number(value: bytes) -> float:
    """The number that a ``Value`` holds; NaN if it is null.

    Raises:
        ValueError: it holds something else, or is no ``Value``.
    """
    if not value:
        return float("nan")
    tag, rest = value[0], value[1:]
    if tag == _FLOAT and len(rest) == 4:
        return float(struct.unpack("<f", rest)[0])
    if tag == _DOUBLE and len(rest) == 8:
        return float(struct.unpack("<d", rest)[0])
    if tag >> 3 in _INTEGERS and tag & 7 == 0:
        bits = _varint(rest)
        return float(bits - (1 << 64) if bits >> 63 else bits)
    if tag >> 3 == _BOOL and tag & 7 == 0:
        return float(_varint(rest) != 0)
    if value[:2] == bytes((_NULL_FIELD << 3 & 0x7F | 0x80, _NULL_FIELD >> 4)):
        _varint(value[2:])
        return float("nan")
    raise ValueError("no number")


def _varint(coded: bytes) -> int:
    """The one varint that these bytes are."""
    ended = [byte < 0x80 for byte in coded]
    if ended.count(True) != 1 or not ended[-1] or len(coded) > 10:
        raise ValueError("no number")
    return sum((byte & 0x7F) << 7 * place for place, byte in enumerate(coded)) & (1 << 64) - 1


class Stamps(dict[bytes | None, float]):
    """Microseconds since 1970 by the stamp in Redis; NaN of none."""

    def __missing__(self, stamp: bytes | None) -> float:
        micros = float("nan")
        if stamp:  # an empty one would be 1970-01-01, which Feast cannot tell from none
            try:
                micros = float(layout.nanoseconds(stamp) // 1000)
            except OverflowError:
                micros = 0.0
            if not micros:
                raise ValueError(stamp)
        if len(self) >= _REMEMBERED:
            self.clear()
        self[stamp] = micros
        return micros
