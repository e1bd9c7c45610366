"""Installed packages against the ranges that musicrec declares, extra by extra."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING

from musicrec.cli.doctor.findings import Asked, Finding, State

if TYPE_CHECKING:
    from packaging.requirements import Requirement

#: What an extra is for, so that nobody installs one they do not need.
PURPOSES = {
    "features": "Feast, Redis and features",
    "serve": "the HTTP service",
    "ann": "approximate search in large catalogues",
    "export": "ONNX",
    "llm": "graphs by Anthropic or OpenAI",
    "tracking": "tracking=mlflow",
    "notebook": "notebooks",
    "dev": "the tests",
}

_OWN = "musicrec"


def packages(_: Asked) -> Iterator[Finding]:
    required, extras = declared()
    yield from _base(required)
    for extra, wanted in extras.items():
        yield _extra(extra, list(_flat(wanted, extras)), {r.name for r in required})


def declared() -> tuple[list[Requirement], dict[str, list[Requirement]]]:
    """What is required always, and for each extra.

    A checkout's own ``pyproject.toml`` before the installed metadata, which is of the day of the
    installation.
    """
    from packaging.requirements import Requirement

    project = Path(__file__).resolve().parents[4] / "pyproject.toml"
    if project.is_file():
        told = tomllib.loads(project.read_text())["project"]
        extras = told["optional-dependencies"]
        return [Requirement(line) for line in told["dependencies"]], {
            extra: [Requirement(line) for line in lines] for extra, lines in extras.items()
        }
    base: list[Requirement] = []
    by_extra: dict[str, list[Requirement]] = {}
    for line in requires(_OWN) or []:
        requirement = Requirement(line)
        marker = str(requirement.marker or "")
        _, _, name = marker.partition("extra == ")
        (by_extra.setdefault(name.strip("\"' )"), []) if name else base).append(requirement)
    return base, by_extra


def _flat(
    wanted: Iterable[Requirement], extras: Mapping[str, list[Requirement]]
) -> Iterator[Requirement]:
    """With ``musicrec[features]`` replaced by what it stands for."""
    for requirement in wanted:
        if requirement.name == _OWN:
            for extra in sorted(requirement.extras):
                yield from _flat(extras[extra], extras)
        else:
            yield requirement


def trouble(requirement: Requirement) -> str | None:
    """What is wrong with one; None where nothing is."""
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return f"{requirement.name} is missing"
    if requirement.specifier.contains(found, prereleases=True):
        return None
    return f"{requirement.name} {found} is not {requirement.specifier}"


def _base(required: list[Requirement]) -> Iterator[Finding]:
    if wrong := [said for each in required if (said := trouble(each))]:
        yield Finding("packages", "broken", ", ".join(wrong), install_command())
    else:
        yield Finding("packages", "ok", f"all {len(required)} required, in their ranges")


def _extra(extra: str, wanted: list[Requirement], base: set[str]) -> Finding:
    check = f"extra {extra}"
    purpose = PURPOSES.get(extra, extra)
    wrong = {each.name: said for each in wanted if (said := trouble(each))}
    missing = [said for said in wrong.values() if said.endswith(" is missing")]
    own = {each.name for each in wanted} - base  # what the base has says nothing of an extra
    if not wrong:
        return Finding(check, "ok", f"for {purpose}: all there, in their ranges")
    if own and own <= wrong.keys() and len(missing) == len(wrong):
        return Finding(check, "not set", f"for {purpose}: not installed", install_command(extra))
    state: State = "warning" if len(missing) == len(wrong) else "broken"
    said = f"for {purpose}: {', '.join(wrong.values())}"
    return Finding(check, state, said, install_command(extra))


def install_command(extra: str | None = None) -> str:
    """What brings an extra, or with None all that is required, into its ranges."""
    chosen = f"[{extra}]" if extra else ""
    by = f"{sys.executable} -m pip install"
    if (Path(__file__).resolve().parents[4] / "constraints.txt").is_file():
        return f'{by} --constraint constraints.txt --editable ".{chosen}"'
    return f'{by} --upgrade "{_OWN}{chosen}"'
