"""What every contestant has in common: the shapes, the clock, the flags, the line it reports.

Imported in the peers' environments too, so it needs torch and numpy alone.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Shape:
    """Two blocks, feed-forward dim → dim, dropout .2 everywhere, full cross-entropy."""

    length: int
    dim: int
    heads: int
    batch: int
    blocks: int = 2


SHAPES = {
    "A": Shape(length=200, dim=64, heads=2, batch=128),
    "B": Shape(length=50, dim=128, heads=4, batch=256),
}


class Stopwatch:
    """Wall-clock and CPU seconds since it was made.

    CPU seconds are of the whole process, system calls included. One thread on one core that nobody
    else uses spends them as the clock on the wall does; where others use the core, they alone say
    what the work costs.
    """

    def __init__(self) -> None:
        self.began = self._now()

    @staticmethod
    def _now() -> tuple[float, float]:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter(), time.process_time()

    def rates(self, count: int, what: str) -> dict[str, float]:
        """The seconds, and how many of ``what`` were done in each."""
        seconds, cpu_seconds = (
            now - then for now, then in zip(self._now(), self.began, strict=True)
        )
        return {
            what: count,
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
            f"{what}_per_second": count / seconds,
            f"{what}_per_cpu_second": count / cpu_seconds,
        }


class Clock:
    """Targets and time of ``steps`` training steps after ``warmup`` others, at least one.

    The time runs from the end of the last warm-up step to the end of the last step, so everything
    that happens between steps is in it: batches, logging, the progress bar.
    """

    def __init__(self, warmup: int, steps: int) -> None:
        self.warmup, self.steps = warmup, steps
        self.done = self.targets = 0
        self.watch: Stopwatch
        self.result: dict[str, float] = {}

    @property
    def total(self) -> int:
        return self.warmup + self.steps

    def step(self, targets: int) -> bool:
        """Count a finished step; whether it was the last."""
        self.done += 1
        if self.done == self.warmup:
            self.watch = Stopwatch()
        elif self.done > self.warmup:
            self.targets += targets
        if self.done == self.total:
            self.result = self.watch.rates(self.targets, "targets")
        return self.done >= self.total


def flags(description: str, *more: str) -> argparse.ArgumentParser:
    """Everyone's flags; ``more`` are actions that only one contestant knows."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("action", choices=["train", "evaluate", *more])
    parser.add_argument("data", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="A")
    parser.add_argument("--batch", type=int, help="windows a step, instead of the shape's")
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--weights", type=Path, help="of the bare loop, by its prepare")
    parser.add_argument("--result", type=Path, help="where the JSON goes; else it is printed")
    return parser


def shape_of(options: argparse.Namespace) -> Shape:
    shape = SHAPES[options.shape]
    return replace(shape, batch=options.batch) if options.batch else shape


def report(options: argparse.Namespace, values: dict[str, Any]) -> None:
    """The result with this process's peak memory, as JSON."""
    status = Path("/proc/self/status").read_text()
    values["peak_rss_mb"] = int(status.split("VmHWM:", 1)[1].split()[0]) / 1024
    values["torch"] = torch.__version__
    if options.device != "cpu":
        values["device"] = torch.cuda.get_device_name()
        values["peak_device_mb"] = torch.cuda.max_memory_allocated() / 2**20
    text = json.dumps(values)
    if options.result:
        options.result.write_text(text)
    else:
        print(text)
