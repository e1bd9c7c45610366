"""Moments as people write them."""

from __future__ import annotations

from datetime import UTC, datetime

from musicrec.errors import ConfigError


def moment(key: str, text: object) -> datetime:
    """An ISO date or time; where it names no zone it is UTC.

    Raises:
        ConfigError: it is none; the message names ``key``.
    """
    try:
        read = datetime.fromisoformat(str(text).strip())
    except ValueError:
        raise ConfigError(
            f"{key}={text} is no ISO date or time, such as 2022-04-26 or 2022-04-26T13:00+02:00"
        ) from None
    try:
        return read.astimezone(UTC) if read.tzinfo else read.replace(tzinfo=UTC)
    except OverflowError:
        raise ConfigError(f"{key}={text} is, in UTC, before the year 1 or after 9999") from None
