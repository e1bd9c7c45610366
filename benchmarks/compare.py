"""Ours, RecTools, RecBole and the bare loop, side by side on one core.

    python benchmarks/compare.py train --shapes A B --rounds 3
    python benchmarks/compare.py evaluate --shapes A B --rounds 3
    python benchmarks/compare.py train --contestants recbole --shapes B --rounds 1

Each contestant is a process of its own on a terminal of its own, pinned to one core with one
thread. A round runs everyone once, so that whatever else the machine does meets all of them; a
ratio is taken within a round, and the median over rounds is what to quote; where others use the
core, the ratio of CPU seconds (``--per cpu_second``). Peers run in environments that this makes on
first use. Every run goes into ``--log`` as it ends, and the tables are made of what is there
(``compare.py table``).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pty
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from listens import ML1M

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "musicrec-benchmarks"
MALLOC = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**34)}


class Contestant(NamedTuple):
    script: str
    steps: int
    """Timed a run: enough for some seconds, few for the slow."""
    malloc: bool = False
    peer: str | None = None
    """Whose environment it needs; None: this one."""
    more: tuple[str, ...] = ()
    """Arguments."""


CONTESTANTS = {
    "bare loop": Contestant("bare_loop.py", 12),
    "ours": Contestant("ours.py", 12),
    "ours, malloc": Contestant("ours.py", 12, malloc=True),
    "ours, eval_memory_mb=32": Contestant("ours.py", 12, more=("--settings", "eval_memory_mb=32")),
    "rectools": Contestant("rectools_sasrec.py", 3, peer="rectools"),
    "rectools, malloc": Contestant("rectools_sasrec.py", 3, malloc=True, peer="rectools"),
    "recbole": Contestant("recbole_sasrec.py", 4, peer="recbole"),
}
DEFAULT = {  # RecBole takes minutes to prepare, so it is asked for by name, and trains only
    "train": ["bare loop", "ours", "ours, malloc", "rectools", "rectools, malloc"],
    "evaluate": ["bare loop", "ours", "ours, eval_memory_mb=32", "rectools"],
}


def python_of(peer: str | None) -> str:
    """The peer's interpreter, after making its environment if its requirements have changed."""
    if peer is None:
        return sys.executable
    requirements = HERE / f"requirements-{peer}.txt"
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()[:8]
    folder = CACHE / f"{peer}-{digest}"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "-qq", "-r", requirements], check=True)
        (folder / "complete").touch()
    return str(python)


def run(name: str, action: str, shape: str, options: argparse.Namespace, *more: str) -> dict:
    """What one contestant reports, with its name, its shape and what it did."""
    contestant = CONTESTANTS[name]
    with tempfile.NamedTemporaryFile(suffix=".json") as result:
        command = ["taskset", "-c", str(options.core), python_of(contestant.peer)]
        command += [str(HERE / contestant.script), action, str(options.data), "--shape", shape]
        command += ["--warmup", "1", "--steps", str(contestant.steps), "--result", result.name]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TERM": "xterm", "COLUMNS": "100"}
        environment |= MALLOC if contestant.malloc else {}
        on_terminal([*command, *contestant.more, *more], environment)
        return {"name": name, "action": action, "shape": shape, **json.loads(result.read())}


def on_terminal(command: list[str], environment: dict[str, str]) -> None:
    """Run it where it believes a person watches, so that its progress bar is drawn."""
    terminal, its_end = pty.openpty()
    process = subprocess.Popen(
        command, stdin=its_end, stdout=its_end, stderr=its_end, env=environment
    )
    os.close(its_end)
    shown = b""
    try:
        while part := os.read(terminal, 1 << 16):
            shown = (shown + part)[-4000:]
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(terminal)
    if process.wait():
        raise SystemExit(f"{' '.join(command)}\n{shown.decode(errors='replace')}")


def weights_of(shape: str, options: argparse.Namespace) -> Path:
    """An epoch or two of the bare loop, for everyone to evaluate."""
    path = CACHE / f"bare-{shape}.pt"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        run("bare loop", "prepare", shape, options, "--steps", "47", "--weights", str(path))
    return path


def compete(options: argparse.Namespace) -> None:
    names = options.contestants or DEFAULT[options.action]
    for name in names:
        python_of(CONTESTANTS[name].peer)
    for number in range(options.rounds):
        for shape in options.shapes:
            more = []
            if options.action == "evaluate":
                more = ["--weights", str(weights_of(shape, options))]
            for name in names:
                result = run(name, options.action, shape, options, *more)
                with options.log.open("a") as log:
                    log.write(json.dumps({"round": [options.run, number], **result}) + "\n")
                rates = {key: value for key, value in result.items() if "_per_" in key}
                told = ", ".join(f"{rate:,.0f} {what}" for what, rate in rates.items())
                print(f"{number + 1} {shape} {name}: {told}", flush=True)


def tables(runs: list[dict[str, Any]], per: str) -> Iterable[str]:
    for action, rate in (("train", f"targets_per_{per}"), ("evaluate", f"users_per_{per}")):
        for shape in sorted({run["shape"] for run in runs if run["action"] == action}):
            chosen = [r for r in runs if (r["action"], r["shape"]) == (action, shape)]
            yield f"\n**{action}, shape {shape}**\n"
            yield from table(chosen, rate)
            if action == "evaluate":
                yield f"\n{agreement(chosen)}"


def table(runs: list[dict[str, Any]], rate: str) -> Iterable[str]:
    unit = rate.replace("_", " ")
    yield f"| | {unit} | × RecTools | × it, malloc both | × bare loop | Peak RSS, MB | Runs |"
    yield "|---|---|---|---|---|---|---|"
    for name in CONTESTANTS:
        own = [run for run in runs if run["name"] == name]
        if not own:
            continue
        malloc = "rectools, malloc" if CONTESTANTS[name].malloc else None
        others = ("rectools", malloc, "bare loop")
        ratios = [ratio(runs, name, other, rate) for other in others]
        middle = statistics.median(run[rate] for run in own)
        peak = statistics.median(run["peak_rss_mb"] for run in own)
        yield f"| {name} | {middle:,.0f} | {' | '.join(ratios)} | {peak:,.0f} | {len(own)} |"


def ratio(runs: list[dict[str, Any]], name: str, other: str | None, rate: str) -> str:
    """Median over the rounds that both ran in, and the range."""
    rates = {(run["name"], str(run["round"])): run[rate] for run in runs}
    both = [
        value / rates[other, turn]
        for (who, turn), value in rates.items()
        if who == name and (other, turn) in rates
    ]
    if not both:
        return "–"
    return f"{statistics.median(both):.2f} ({min(both):.2f}–{max(both):.2f})"


def agreement(runs: list[dict[str, Any]]) -> str:
    """How many listeners' targets stand at the same rank, whoever ranks them."""
    latest = {run["name"]: run for run in runs}
    if not {"ours", "bare loop", "rectools"} <= latest.keys():
        return ""
    ours, bare = latest["ours"]["ranks"], latest["bare loop"]["ranks"]
    among_ten = [rank if rank <= 10 else 0 for rank in ours]
    same = sum(a == b for a, b in zip(ours, bare, strict=True))
    shown = sum(a == b for a, b in zip(among_ten, latest["rectools"]["places"], strict=True))
    return (
        f"Same weights, {len(ours):,} listeners: {same:,} have the rank the bare loop gives, "
        f"{shown:,} the place among RecTools' ten ({sum(r > 0 for r in among_ten):,} are in them)."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["train", "evaluate", "table"])
    parser.add_argument("--data", type=Path, default=ML1M)
    parser.add_argument("--shapes", nargs="+", default=["A", "B"])
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--log", type=Path, default=CACHE / "runs.jsonl", help="one line a run")
    parser.add_argument("--per", choices=["second", "cpu_second"], default="second")
    options = parser.parse_args()
    options.run = os.getpid()
    if options.action != "table":
        CACHE.mkdir(parents=True, exist_ok=True)
        compete(options)
    runs = [json.loads(line) for line in options.log.read_text().splitlines()]
    print("\n".join(tables(runs, options.per)))


if __name__ == "__main__":
    main()
