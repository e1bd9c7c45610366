"""A file of environment variables, ``.env``, as compose has it: read by us, and run by no shell."""

from __future__ import annotations

import re
from pathlib import Path

from musicrec.errors import ConfigError

NAME = ".env"

_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)")


def read(path: Path) -> dict[str, str]:
    """Its variables; none where there is no such file.

    A value may stand in quotes; without them it ends before `` #``. Nothing is replaced in it.

    Raises:
        ConfigError: a line is none, told by its number alone, since it may hold a secret; or the
            file cannot be read.
    """
    if not path.exists():
        return {}
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise ConfigError(f"{path} cannot be read: {reason}; mend it") from error
    values = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        parts = _LINE.fullmatch(line.strip())
        if parts is None:
            raise ConfigError(f"line {number} of {path} is not NAME=value; mend it")
        values[parts[1]] = _value(parts[2], number, path)
    return values


def _value(text: str, number: int, path: Path) -> str:
    quote = text[:1]
    if quote not in ("'", '"'):
        return re.split(r"\s#", text, maxsplit=1)[0].strip()
    end = text.find(quote, 1)
    if end < 0 or not re.fullmatch(r"\s*(#.*)?", text[end + 1 :]):
        raise ConfigError(f"line {number} of {path} has a quote without its other; mend it")
    return text[1:end]
