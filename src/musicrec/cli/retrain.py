# ruff: noqa: S603  the command is Python's own, given as a list to no shell
"""``scripts/retrain.py``: the weekly job, from new listens to a new champion.

Ends with 0 where the champion is trained on what there is, 3 where the challenger was refused, 4
where another one is at work, and 2 where it cannot work. The training is a process of its own: it
may be many processes, its memory is given back before the judging, and it can be stopped.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from musicrec.cli import door, flags, retraining, settings, tracking
from musicrec.cli.job import Busy, Log, alone
from musicrec.cli.retraining import Order
from musicrec.database.home import home
from musicrec.errors import ConfigError, MusicrecError
from musicrec.registry.policy import Policy
from musicrec.registry.versions import Model

REFUSED, BUSY = 3, 4

#: Settings of this command; all others are the training's.
_OWN = ("name", "force", "keep_runs", "policy")

#: How long a training that is told to stop may take for it.
_PATIENCE_SECONDS = 60


def retrain(config: DictConfig) -> None:
    """Train if there is something new, register, judge, and promote or refuse."""
    order = _order(config, HydraConfig.get())
    signal.signal(signal.SIGTERM, _stop)
    if status := carry_out(order):
        raise SystemExit(status)


def carry_out(order: Order) -> int:
    """One round, alone; the status to end with."""
    folder, console = home() / "retrain" / order.name, Console()
    log = Log(folder / "log.jsonl", console, model=order.name)
    try:
        with alone(folder) as lock:
            return _logged(order, folder, log, console, lock)
    except Busy as busy:
        log.tell("busy", f"nothing done: {busy}", status=BUSY)
        return BUSY


def _logged(order: Order, folder: Path, log: Log, console: Console, lock: int) -> int:
    """A round whose end stands in the log, however it ends but for a kill."""

    def train(run: Path, is_resumed: bool) -> int:
        return _train(order, run, lock, is_resumed=is_resumed)

    try:
        is_current = retraining.retrain(order, train, folder, log, console)
    except MusicrecError as error:
        log.note("failed", why=str(error), status=2)
        raise
    except BaseException as error:
        log.note("stopped", why=f"{type(error).__name__}: {error}")
        raise
    status = 0 if is_current else REFUSED
    log.note("ended", status=status)
    return status


def _order(config: DictConfig, hydra: HydraConf) -> Order:
    """The settings, with everything refused that would spoil the round only after the training.

    Raises:
        ConfigError: names the setting.
    """
    if hydra.mode == RunMode.MULTIRUN:
        raise ConfigError("a retraining is one training; for many of them: make sweep")
    if config.dataset is None:
        raise ConfigError("which dataset? add dataset=NAME, such as dataset=mine")
    if "_target_" in config.data:
        raise ConfigError(
            "a retraining takes what is in Postgres; import first "
            f"(scripts/import_interactions.py dataset={config.dataset}), and leave data= out"
        )
    if config.refit:
        raise ConfigError(
            "refit=true trains on the very targets that the challenger is judged by; leave it out"
        )
    if config.ckpt_path is not None:
        raise ConfigError("ckpt_path is found by itself; leave it out")
    if config.keep_runs < 1:
        raise ConfigError(f"keep_runs={config.keep_runs} must be at least 1")
    given = hydra.overrides
    if any(override.startswith("hydra.run.dir") for override in given.hydra):
        raise ConfigError("hydra.run.dir is chosen by itself, in retrain/NAME of the home")
    settings.check(config)
    tracking.check(config)
    name = str(config.dataset if config.name is None else config.name)
    return Order(
        dataset=str(config.dataset),
        name=Model(name).name,
        settings=tuple(s for s in given.task if not _is_own(s)),
        policy=Policy(**_plain(config.policy)),
        force=config.force,
        keep_runs=config.keep_runs,
    )


def _is_own(override: str) -> bool:
    return override.partition("=")[0].lstrip("+~").split(".")[0] in _OWN


def _plain(config: DictConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(config)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _train(order: Order, run: Path, lock: int, *, is_resumed: bool) -> int:
    """Run the training; its exit status.

    It holds the lock as well: where this process is killed and the training is not, no other one
    begins beside it.
    """
    command = [sys.executable, "-m", "musicrec.cli.train_alone", *order.settings]
    if not any(setting.startswith("data=") for setting in order.settings):
        command.append("data=postgres")
    command.append(f"hydra.run.dir={flags.quoted(str(run))}")
    if is_resumed:
        command.append("ckpt_path=last")
    training = subprocess.Popen(command, pass_fds=(lock,))
    try:
        return training.wait()
    except BaseException as stop:
        _stop_training(training, was_told=isinstance(stop, KeyboardInterrupt))
        raise


def _stop_training(training: subprocess.Popen[bytes], *, was_told: bool) -> None:
    """End it with this process. A terminal's Ctrl-C has reached it already."""
    if not was_told:
        training.send_signal(signal.SIGINT)
    try:
        training.wait(_PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        training.kill()
        training.wait()


def _stop(*_: Any) -> NoReturn:
    raise SystemExit(128 + signal.SIGTERM)


def main() -> None:
    door.run("retrain", retrain, flags.TRAIN)
