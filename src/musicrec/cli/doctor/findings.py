"""What a check found, and how it is said without a secret."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

#: ``not set`` is what nobody asked for: an extra that is not installed, a key that is not given.
State = Literal["ok", "warning", "broken", "not set"]

_SECRET = re.compile(r"KEY|PASSWORD|SECRET|TOKEN", re.IGNORECASE)
_ACCOUNT = re.compile(r"(\w://)[^/@\s]+@")

#: A value this short stands in ordinary words too.
_SHORT = 4


@dataclass(frozen=True, slots=True)
class Asked:
    """What to look at.

    Attributes:
        dataset: None is each that there is.
        bundle: a path or ``models:/…``; None is what the service would take.
        as_of: the moment by which features should be fresh; None is now.
        online: whether to ask the LLM providers over the network.
        start: whether to start the embedded servers and look inside.
    """

    dataset: str | None = None
    bundle: str | None = None
    as_of: datetime | None = None
    online: bool = False
    start: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check.

    Attributes:
        check: what was looked at.
        state: how it is.
        said: in one line.
        fix: a command, or a step where none does it; empty where nothing needs mending.
    """

    check: str
    state: State
    said: str
    fix: str = ""


def failed(check: str, error: BaseException, fix: str = "") -> Finding:
    """Broken by an error whose line says what, and after its last semicolon the way out."""
    line = " ".join(str(error).split())
    what, _, way_out = line.rpartition("; ")
    return Finding(check, "broken", what or line, fix or (way_out if what else ""))


def without_secrets(text: str) -> str:
    """``text`` without the value of any secret of the environment, whatever put it there.

    Checks show none to begin with; this is for what other libraries may quote in their errors.
    """
    text = _ACCOUNT.sub(r"\1***@", text)
    for name, value in os.environ.items():
        if _SECRET.search(name) and len(value.strip()) >= _SHORT:
            text = text.replace(value.strip(), "***")
    return text
