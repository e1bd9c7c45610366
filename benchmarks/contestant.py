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


class Clock:
    """Targets and wall-clock seconds of ``steps`` training steps after ``warmup`` others.

    The time runs from the end of the last warm-up step to the end of the last step, so everything
    that happens between steps is in it: batches, logging, the progress bar.
    """

    def __init__(self, warmup: int, steps: int) -> None:
        self.warmup, self.steps = warmup, steps
        self.done = self.targets = 0
        self.seconds = 0.0

    @property
    def total(self) -> int:
        return self.warmup + self.steps

    def step(self, targets: int | torch.Tensor) -> bool:
        """Count a finished step; whether it was the last."""
        self.done += 1
        if self.done > self.warmup:
            self.targets += targets
        if self.done in (self.warmup, self.total):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            now = time.perf_counter()
            self.seconds = now if self.done == self.warmup else now - self.seconds
        return self.done >= self.total

    def result(self) -> dict[str, float]:
        assert self.done >= self.total, f"{self.done} steps of {self.total}"
        targets = int(self.targets)
        return {
            "targets": targets,
            "seconds": self.seconds,
            "targets_per_second": targets / self.seconds,
            "ms_per_step": 1000 * self.seconds / self.steps,
        }


def flags(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("action", choices=["train", "prepare", "evaluate"])
    parser.add_argument("data", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="A")
    parser.add_argument("--batch", type=int, help="windows a step, instead of the shape's")
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--weights", type=Path, help="written by prepare, read by evaluate")
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
