"""Who hears of a training: TensorBoard always, MLflow where ``tracking=mlflow``.

MLflow hears of it through the run's journal (``musicrec.registry.journal``), so it may be away.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger
from torch import Tensor

from musicrec.cli import flags, outputs
from musicrec.cli.prepare import Start
from musicrec.errors import ConfigError
from musicrec.registry import mlflow_server
from musicrec.registry.bundle import commit
from musicrec.registry.journal import Journal, Status, told
from musicrec.registry.shipper import Shipper
from musicrec.registry.shipping import Shipment
from musicrec.training.journalling import JournalLogger
from musicrec.training.plots import learning_curve, rank_histogram


def check(config: DictConfig) -> None:
    """What would spoil the tracking only when the training has begun.

    Raises:
        ConfigError: names the setting.
    """
    if config.tracking.mlflow is None:
        return
    mlflow_server.check_installed()
    experiment = config.tracking.mlflow.experiment
    if experiment is not None and not str(experiment).strip():
        raise ConfigError("tracking.mlflow.experiment is empty; give a name, or leave it out")


class Tracked:
    """A training that is heard of, within a ``with`` block; how it ends is told as well.

    Args:
        is_first: whether this process speaks for all that train together.

    Attributes:
        loggers: for Lightning; the first is TensorBoard's.
    """

    def __init__(self, config: DictConfig, start: Start, *, is_first: bool) -> None:
        self.config = config
        self.folder = start.folder
        self.dataset = start.dataset
        self.loggers: list[Logger] = [
            instantiate(config.tracking.tensorboard, save_dir=str(start.folder))
        ]
        self._journal: Journal | None = None
        if config.tracking.mlflow is not None and is_first:
            self._journal = self._begun(start)
            self.loggers.append(JournalLogger(self._journal))

    def __enter__(self) -> Self:
        if self._journal is not None:
            shipment = Shipment(self.folder)
            self._shipper = Shipper(shipment, self._warn)
            self._shipper.start(ready=shipment.is_local)
        return self

    def judged(self, ranks: Tensor) -> None:
        """Draw where the model ranked the test targets."""
        if self._journal is not None:
            title = f"{self.dataset}: {len(ranks):,} test targets"
            self._plot("ranks.svg", rank_histogram(ranks, title))

    def finish(self, metrics: Mapping[str, Any], step: int) -> None:
        """All that the run has become, once its files are written."""
        if self._journal is None:
            return
        curves = told(self._journal.path).curves
        # A training of less than log_every_n_steps has told no loss.
        names = [name for name in ("train/loss", self.config.monitor) if name in curves]
        drawing = learning_curve({name: curves[name] for name in names}, self.dataset)
        self._plot("learning_curve.svg", drawing)
        self._journal.tags({f"protocol.{k}": str(v) for k, v in metrics["protocol"].items()})
        self._journal.metrics(step, outputs.numbers(metrics))
        for name in ("metrics.json", "model.pt"):
            self._journal.artifact(self.folder / name)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._journal is None:
            return
        self._journal.end(_status(kind))
        self._journal.close()
        has_arrived = self._shipper.finish()
        print(self._last_line(has_arrived=has_arrived), file=sys.stderr if kind else sys.stdout)

    def _begun(self, start: Start) -> Journal:
        journal, ours = Journal(self.folder), self.config.tracking.mlflow
        fingerprint = start.identity["data_fingerprint"]
        sweep = _sweep()
        name = f"{sweep['sweep']}/{sweep['sweep.job']}" if sweep else self.folder.name
        tags = {"dataset": start.dataset, "data_fingerprint": fingerprint, "commit": commit()}
        journal.begin(
            experiment=str(ours.experiment or start.dataset),
            name=str(ours.name or name),
            tags=tags | sweep | {str(k): str(v) for k, v in ours.tags.items()},
            params=outputs.flat(self.config),
            is_resumed=start.resume_from is not None,
        )
        journal.data(start.dataset, fingerprint, "training")
        settings = self.folder / "config.yaml"
        settings.write_text(OmegaConf.to_yaml(self.config, resolve=True))
        journal.artifact(settings)
        return journal

    def _plot(self, name: str, drawing: str) -> None:
        assert self._journal is not None
        path = self.folder / "plots" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(drawing)
        self._journal.artifact(path, "plots")

    def _warn(self, failure: str) -> None:
        print(
            f"warning: {failure}; the training goes on, and all it tells stays in "
            f"{os.path.relpath(self.folder / 'tracking.jsonl')}",
            file=sys.stderr,
            flush=True,
        )

    def _last_line(self, *, has_arrived: bool) -> str:
        shipment = self._shipper.shipment
        if not has_arrived:
            return f"not all is in MLflow yet; upload it later: {upload_command(self.folder)}"
        return f"in MLflow: {shipment.link() or f'{shipment.server}   (see it: make mlflow)'}"


def upload_command(folder: Path) -> str:
    """What sends the run in ``folder``, ready for a shell."""
    place = os.path.relpath(folder)
    plain = re.fullmatch(r"[A-Za-z0-9._/:-]+", place)
    setting = f"run={place if plain else flags.quoted(place)}"
    return f"python scripts/upload_run.py {shlex.quote(setting)}"


def _status(kind: type[BaseException] | None) -> Status:
    if kind is None:
        return "FINISHED"
    return "KILLED" if issubclass(kind, KeyboardInterrupt) else "FAILED"


def _sweep() -> dict[str, str]:
    """What runs of one sweep have in common, and what sets this one apart."""
    hydra = HydraConfig.get()
    if hydra.mode != RunMode.MULTIRUN:
        return {}
    return {
        "sweep": Path(hydra.sweep.dir).name,
        "sweep.job": str(hydra.job.num),
        "sweep.settings": str(hydra.job.override_dirname),
    }
