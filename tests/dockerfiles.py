"""A Dockerfile read into instructions, as far as ours go."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Instruction:
    """``word options… text``, such as ``COPY --from=packages /a /b``."""

    word: str
    options: tuple[str, ...]
    text: str

    def option(self, name: str) -> str | None:
        found = (o.partition("=")[2] for o in self.options if o.startswith(f"--{name}="))
        return next(found, None)

    @property
    def words(self) -> list[str]:
        """Of JSON's form, else as a shell splits them."""
        return json.loads(self.text) if self.text.startswith("[") else shlex.split(self.text)


@dataclass
class Stage:
    name: str
    parent: str
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, word: str) -> list[Instruction]:
        return [one for one in self.instructions if one.word == word]


def read(path: Path) -> dict[str, Stage]:
    """The stages by name, in order."""
    lines = [line for line in path.read_text().splitlines() if not re.match(r"\s*(#|$)", line)]
    stages: dict[str, Stage] = {}
    for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        word, rest = line.split(maxsplit=1)
        options = []
        while match := re.match(r"(--\S+)\s+(.*)", rest):
            options.append(match[1])
            rest = match[2]
        if word == "FROM":
            parent, _, name = rest.split()
            last = stages[name] = Stage(name, parent)
        else:
            last.instructions.append(Instruction(word, tuple(options), rest.strip()))
    return stages


def lineage(stages: dict[str, Stage], name: str) -> list[Stage]:
    """The stage and what it is made from, the first first."""
    stage = stages[name]
    return [*(lineage(stages, stage.parent) if stage.parent in stages else []), stage]
