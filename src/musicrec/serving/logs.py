"""The service's log: one line of JSON for each thing worth knowing, on stderr."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any

#: Of a failure: the outer ones are the web server's.
_FRAMES = 12


class JsonLines(logging.Formatter):
    """``{"at", "level", "about", "said", …}``; ``extra={"facts": {…}}`` adds keys.

    Of an exception it says what ``failure_of`` does.
    """

    def format(self, record: logging.LogRecord) -> str:
        error = record.exc_info[1] if record.exc_info else None
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "about": record.name.removeprefix("musicrec."),
            "said": record.getMessage(),
            **getattr(record, "facts", {}),
            **({} if error is None else failure_of(error)),
        }
        return json.dumps(line, ensure_ascii=False, default=str)


def failure_of(error: BaseException) -> dict[str, Any]:
    """The kind of a failure and where it was raised, the innermost place last.

    Its message stays unsaid: what it quotes may be somebody's history, or a password.
    """
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    where = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    return {"error": type(error).__name__, "where": where}


def log_lines() -> None:
    """Let this process log so."""
    logger = logging.getLogger("musicrec")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
