"""``requirements.py pyproject.toml "EXTRA …"``: what a project needs, one requirement a line.

So that an image holds its packages in a layer that a change of the code leaves alone.
"""

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def requirements(project: dict[str, Any], extras: list[str]) -> Iterator[str]:
    """Of the project and its extras; an extra that names others of the project is followed."""
    optional = project["optional-dependencies"]
    if unknown := [extra for extra in extras if extra not in optional]:
        raise SystemExit(f"error: no extra {', '.join(unknown)}; there are {', '.join(optional)}")
    yield from project["dependencies"]
    own = re.compile(rf"{re.escape(project['name'])}\[(.+)\]")
    waiting, seen = list(extras), set()
    while waiting:
        extra = waiting.pop()
        if extra in seen:
            continue
        seen.add(extra)
        for requirement in optional[extra]:
            if others := own.fullmatch(requirement):
                waiting += [other.strip() for other in others[1].split(",")]
            else:
                yield requirement


if __name__ == "__main__":
    path, *words = sys.argv[1:]
    told = tomllib.loads(Path(path).read_text())["project"]
    print("\n".join(requirements(told, " ".join(words).split())))
