# ruff: noqa: S603  commands are lists, given to no shell
"""The user's crontab: marked lines of ours, and all others as they are."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from musicrec.errors import ConfigError


def mark(edge: str, dataset: str) -> str:
    """The line before (``begin``) or after (``end``) those of a dataset, in this folder."""
    return f"# musicrec {edge}: dataset={dataset} in {Path.cwd()}"


def without_blocks(crontab: Sequence[str], dataset: str | None) -> list[str]:
    """``crontab`` without this folder's lines, all or of one dataset; others stay as they are.

    Raises:
        ConfigError: a block has no end, so that nobody knows whose the lines below it are.
    """
    kept: list[str] = []
    pattern = re.compile(rf"# musicrec begin: dataset=(\w+) in {re.escape(str(Path.cwd()))};")
    end = None
    for line in crontab:
        if end is not None:
            end = None if line == end else end
        elif (begun := pattern.match(line)) and dataset in (None, begun[1]):
            end = mark("end", begun[1])
        else:
            kept.append(line)
    if end is not None:
        raise ConfigError(f"the crontab lacks the line {end!r}; mend it with `crontab -e`")
    return kept


def read() -> list[str]:
    """Its lines; none where there is no crontab yet.

    Raises:
        ConfigError: there is no cron here, or it refuses to tell.
    """
    program = shutil.which("crontab")
    if program is None:
        raise ConfigError(
            "there is no crontab here; install cron (Debian: apt install cron), or let compose's "
            "scheduler or Kubernetes call the jobs (docker/)"
        )
    listed = subprocess.run([program, "-l"], capture_output=True, text=True, check=False)
    if listed.returncode and "no crontab" not in listed.stderr:
        raise ConfigError(f"crontab -l failed: {listed.stderr.strip()}; see to it first")
    return listed.stdout.splitlines() if listed.returncode == 0 else []


def write(lines: Sequence[str]) -> None:
    """Put other lines in its place.

    Raises:
        ConfigError: cron refuses them.
    """
    text = "".join(f"{line}\n" for line in lines)
    written = subprocess.run(
        ["crontab", "-"],  # noqa: S607
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    if written.returncode:
        raise ConfigError(f"crontab refuses the lines: {written.stderr.strip()}")
