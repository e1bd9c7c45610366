"""What a multirun says when it is over: every run's result, the best first."""

from __future__ import annotations

import sys
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from rich.text import Text


class SweepTable(Callback):
    """Collects what each run returned and prints one table at the end of the sweep."""

    def __init__(self) -> None:
        self.results: list[tuple[float, str, str]] = []
        self.num_failed = 0

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        if job_return.status == JobStatus.COMPLETED and isinstance(job_return.return_value, float):
            overrides = " ".join(job_return.overrides or [])
            folder = str(job_return.hydra_cfg.hydra.runtime.output_dir)  # type: ignore[union-attr]
            self.results.append((job_return.return_value, overrides, folder))
        else:
            self.num_failed += 1

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        table = Table(title=f"{len(self.results)} runs, by {config.monitor}", title_justify="left")
        for name in (config.monitor, "settings", "folder"):
            table.add_column(name, overflow="fold")
        for value, overrides, folder in sorted(self.results, reverse=True):
            table.add_row(f"{value:.4f}", Text(overrides), Text(folder))
        Console().print(table)
        if self.num_failed:
            print(f"error: {self.num_failed} runs of this sweep failed, see above", file=sys.stderr)
            raise SystemExit(2)
