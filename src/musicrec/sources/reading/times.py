"""Times as files write them, brought to microseconds since 1970, UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from musicrec.errors import ConfigError, nearest
from musicrec.sources.reading.rows import Mask
from musicrec.sources.reading.values import cast_or_null, numbers, plain

Micros = npt.NDArray[np.int64]

SECOND = 1_000_000

#: Microseconds in one unit of a count since 1970.
UNITS = {"unix_s": SECOND, "unix_ms": 1_000, "unix_us": 1, "order": SECOND}

#: The values of ``data.time``; a text with a ``%`` is a strptime format, UTC unless it has ``%z``.
TIME_FORMATS = ("unix_s", "unix_ms", "unix_us", "iso", "order")

# Beyond the year 200,000 a count is a mistake; kept below int64's end to stay comparable.
_FARTHEST = 2**62

# After a time of day only: a date ends in "-16" too.
_ZONED = r"(?:Z|:\d{2}(?:\.\d+)?[+-]\d{2}(?::?\d{2})?)$"


def latest_time() -> int:
    """The last microsecond a play may have begun: one day from now, for clocks that are ahead."""
    return int((datetime.now(UTC) + timedelta(days=1)).timestamp() * SECOND)


def check_time_format(time: str) -> str:
    """``time`` if it is one of ``TIME_FORMATS`` or a strptime format; else a ConfigError."""
    if time not in TIME_FORMATS and "%" not in time:
        raise ConfigError(
            f"data.time={time} is no time format{nearest(time, TIME_FORMATS)}; choose "
            f"{' | '.join(TIME_FORMATS)}, or write one such as '%d/%m/%Y %H:%M'"
        )
    return time


def read_times(column: pa.ChunkedArray | pa.Array, time: str) -> tuple[Micros, Mask]:
    """Microseconds since 1970 of each row, and the rows where they could be read.

    A column that holds real timestamps (Parquet) is taken as it is, without a zone as UTC;
    ``order`` counts one second per step.
    """
    values = plain(column)
    if pa.types.is_timestamp(values.type) or pa.types.is_date(values.type):
        return _micros(values.cast(pa.timestamp("us"), safe=False))
    if time in UNITS:
        return _counted(values, UNITS[time])
    text = pc.utf8_trim_whitespace(values.cast(pa.string()))
    return _micros(_iso(text) if time == "iso" else _formatted(text, time))


def _micros(times: pa.Array) -> tuple[Micros, Mask]:
    ok = pc.is_valid(times).to_numpy(zero_copy_only=False).astype(bool)
    micros = times.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    return micros, ok


def _counted(values: pa.Array, unit: int) -> tuple[Micros, Mask]:
    try:
        whole = values.cast(pa.int64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        found, bad = numbers(values)
        ok = ~bad & ~np.isnan(found)
        scaled = np.clip(np.where(ok, found, 0) * unit, -_FARTHEST, _FARTHEST)
        return np.rint(scaled).astype(np.int64), ok
    ok = pc.is_valid(whole).to_numpy(zero_copy_only=False).astype(bool)
    count = whole.fill_null(0).to_numpy(zero_copy_only=False)
    return np.clip(count, -_FARTHEST // unit, _FARTHEST // unit) * unit, ok


def _iso(text: pa.Array) -> pa.Array:
    """ISO 8601 with or without a zone (UTC then); days, minutes, fractions down to nanoseconds."""
    for zone in ("UTC", None):
        try:
            return text.cast(pa.timestamp("us", zone)).cast(pa.timestamp("us"))
        except pa.ArrowInvalid:
            continue
    text = pc.replace_substring_regex(text, r"\s*(?:UTC|GMT|z)$", "Z")
    text = pc.replace_substring_regex(text, r"\s+([+-]\d{2}:?\d{2})$", r"\1")
    text = pc.replace_substring_regex(text, r"(\.\d{6})\d+", r"\1")
    zoned = pc.match_substring_regex(text, _ZONED)
    aware = cast_or_null(pc.if_else(zoned, text, None), pa.timestamp("us", "UTC"))
    naive = cast_or_null(pc.if_else(zoned, None, text), pa.timestamp("us"))
    return pc.coalesce(aware.cast(pa.timestamp("us")), naive)


def _formatted(text: pa.Array, time: str) -> pa.Array:
    try:
        parsed = pc.strptime(text, format=time, unit="us", error_is_null=True)
    except pa.ArrowInvalid as error:
        raise ConfigError(f"data.time={time!r} is no strptime format: {error}") from error
    return parsed.cast(pa.timestamp("us"))
