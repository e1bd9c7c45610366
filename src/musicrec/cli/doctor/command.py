"""``scripts/doctor.py``: a check of everything that musicrec stands on, each with its fix.

Not a Hydra command, and nothing but the standard library is imported here: it must be able to say
that a package is missing. Ends with status 1 if anything is broken.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from musicrec.cli.doctor.findings import Asked, Finding, State, failed, without_secrets
from musicrec.cli.moments import moment
from musicrec.errors import ConfigError, MusicrecError, nearest

if TYPE_CHECKING:
    from rich.table import Table

#: What is looked at, in this order: the check's name, and the function that makes its findings.
CHECKS: Mapping[str, str] = {
    "Python": "machine.python",
    "packages": "packages.packages",
    "torch": "machine.torch_build",
    "threads": "machine.threads",
    "home": "machine.home_folder",
    "disk": "machine.disk",
    "Postgres": "servers.postgres",
    "datasets": "servers.datasets",
    "Redis": "servers.redis",
    "Feast": "features.feast",
    "model": "models.model",
    "model versions": "models.aliases",
    "LLM": "network.llm",
    "tracking": "network.tracking",
    "ports": "network.ports",
}

_SETTINGS = ("dataset", "bundle", "as_of", "online", "start", "json")
_USAGE = (
    "usage: doctor [dataset=NAME] [bundle=PATH] [as_of=MOMENT] [online=true] [start=true] [--json]"
)
_MARKS: Mapping[State, str] = {
    "ok": "green",
    "warning": "yellow",
    "broken": "bold red",
    "not set": "dim",
}


def examine(asked: Asked, checks: Mapping[str, str]) -> Iterator[Finding]:
    """The findings of each check, whatever becomes of the others."""
    for name, function in checks.items():
        for finding in _guarded(name, function, asked):
            yield replace(
                finding, said=without_secrets(finding.said), fix=without_secrets(finding.fix)
            )


def _guarded(name: str, function: str, asked: Asked) -> Iterator[Finding]:
    module, _, check = function.partition(".")
    try:
        yield from getattr(importlib.import_module(f"musicrec.cli.doctor.{module}"), check)(asked)
    except ImportError as error:
        missing = (error.name or "a package").partition(".")[0]
        yield Finding(name, "broken", f"cannot be looked at: {error}", _install(missing))
    except MusicrecError as error:
        yield failed(name, error)
    except Exception as error:  # a check that fails is a finding, and no reason to stop
        said = f"the check itself failed: {type(error).__name__}: {error}"
        yield Finding(name, "broken", said, "report it; `python -X dev` shows more")


def _install(package: str) -> str:
    return f"python -m pip install --constraint constraints.txt {package}"


def _asked(arguments: Sequence[str]) -> tuple[Asked, bool]:
    """What to look at, and whether the answer is JSON.

    Raises:
        ConfigError: an unknown setting, or a value that makes no sense.
    """
    given: dict[str, str] = {}
    for argument in arguments:
        key, has_value, value = ("json", "=", "true") if argument == "--json" else _parted(argument)
        if not has_value or key not in _SETTINGS:
            raise ConfigError(f"unknown setting {argument!r}{nearest(key, _SETTINGS)}; {_USAGE}")
        given[key] = value
    for key in ("online", "start", "json"):
        if given.get(key, "false") not in ("true", "false"):
            raise ConfigError(f"{key}={given[key]} is neither true nor false")
    as_of = given.get("as_of")
    asked = Asked(
        dataset=given.get("dataset") or None,
        bundle=given.get("bundle") or None,
        as_of=moment("as_of", as_of) if as_of not in (None, "", "null") else None,
        online=given.get("online") == "true",
        start=given.get("start") == "true",
    )
    return asked, given.get("json") == "true"


def _parted(argument: str) -> tuple[str, str, str]:
    key, sign, value = argument.partition("=")
    return key, sign, value


def _as_json(findings: Sequence[Finding]) -> str:
    counts = Counter(finding.state for finding in findings)
    states = {state: counts[state] for state in _MARKS}
    report = {"states": states, "checks": [asdict(finding) for finding in findings]}
    return json.dumps(report, indent=1, ensure_ascii=False)


def _plain(findings: Sequence[Finding]) -> Iterator[str]:
    for finding in findings:
        yield f"{finding.state:<8} {finding.check}: {finding.said}"


def _table(findings: Sequence[Finding]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(show_edge=False, pad_edge=False)
    for column in ("check", "state", "what was found"):
        table.add_column(column, no_wrap=column == "state", overflow="fold")
    for finding in findings:
        state = f"[{_MARKS[finding.state]}]{finding.state}[/]"
        table.add_row(escape(finding.check), state, escape(finding.said))
    return table


def _show(findings: Sequence[Finding]) -> None:
    try:
        from rich.console import Console

        Console().print(_table(findings))
    except ImportError:  # which stands among the findings
        print("\n".join(_plain(findings)))
    # Printed as they are, so that a command is one line however narrow the terminal.
    to_mend = [finding for finding in findings if finding.fix]
    if to_mend:
        print()
    for state in ("broken", "warning", "not set"):
        for finding in to_mend:
            if finding.state == state:
                print(f"{finding.check} ({state}): {finding.fix}")
    counts = Counter(finding.state for finding in findings)
    print("\n" + ", ".join(f"{counts[state]} {state}" for state in _MARKS if counts[state]))


def main() -> None:
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(_USAGE)
        return
    try:
        asked, as_json = _asked(sys.argv[1:])
    except MusicrecError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    findings = list(examine(asked, CHECKS))
    if as_json:
        print(_as_json(findings))
    else:
        _show(findings)
    if any(finding.state == "broken" for finding in findings):
        raise SystemExit(1)
