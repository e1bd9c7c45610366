"""What every command does at the door: read its settings, run, and fail in one line."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from musicrec.cli import compose
from musicrec.cli.flags import translate
from musicrec.errors import ConfigError, MusicrecError
from musicrec.training.launch import is_first

Task = Callable[[DictConfig], Any]

#: For a process that follows another: no folder, no copy of the settings, no log file.
_WITHOUT_FOLDER = ["hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=none"]


def run(
    name: str,
    task: Task,
    aliases: Mapping[str, str],
    *,
    is_shared: Callable[[DictConfig], bool] | None = None,
) -> None:
    """Run ``task`` with ``configs/<name>.yaml`` and the command line's overrides.

    What a person can mend ends in ``error: …`` on one line and exit status 2; anything else is a
    bug and keeps its traceback. In a multirun the task's return value goes to the sweeper.

    Args:
        is_shared: whether, with these settings, all processes that a launcher started do one task
            together. Then the first speaks for all, and the others have no folder of their own.
    """
    _quiet()
    may_follow = is_shared is not None and not is_first()
    try:
        sys.argv[1:] = translate(sys.argv[1:], aliases)
        config = _check_settings(name, sys.argv[1:])
    except MusicrecError as error:
        _fail(error, is_silent=may_follow)
    follows = may_follow and is_shared is not None and config is not None and is_shared(config)
    if follows:
        sys.argv += _WITHOUT_FOLDER
    try:
        hydra.main(version_base="1.3", config_path=str(compose.config_folder()), config_name=name)(
            _guarded(task, follows)
        )()
    except KeyboardInterrupt as stop:  # while starting or ending
        _interrupted(stop)


def _check_settings(name: str, arguments: list[str]) -> DictConfig | None:
    """The config of a single run; None for a sweep, and where Hydra is only asked something."""
    settings = [a for a in arguments if not a.startswith("-") and "=" in a]
    if {"-m", "--multirun"} & set(arguments) or _searches(settings):
        compose.check_sweep(name, settings)
    elif not any(a.startswith("-") for a in arguments):
        stray = [a for a in arguments if "=" not in a and not a.startswith(("~", "+"))]
        if stray:
            raise ConfigError(f"{stray[0]!r} is not a setting; write key=value")
        return compose.compose(name, settings)
    return None


def _searches(settings: list[str]) -> bool:
    return any(s.startswith("hparams_search=") and s != "hparams_search=null" for s in settings)


def _guarded(task: Task, follows: bool) -> Task:
    def guarded(config: DictConfig) -> Any:
        try:
            return task(config)
        except KeyboardInterrupt as stop:
            _interrupted(stop)
        except Exception as error:
            cause = _for_a_person(error)
            if cause is None:
                raise
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                return _failed_of_many(cause)
            _fail(cause, is_silent=follows)

    # Hydra names the job and its log file by the function's module and name.
    guarded.__module__, guarded.__qualname__ = task.__module__, task.__qualname__
    return guarded


def _for_a_person(error: BaseException | None) -> MusicrecError | None:
    """The error meant for a person, itself or what another library wrapped around it."""
    while error is not None:
        if isinstance(error, MusicrecError):
            return error
        error = error.__cause__
    return None


def _interrupted(stop: KeyboardInterrupt) -> NoReturn:
    print(f"\ninterrupted: {stop}" if str(stop) else "\ninterrupted", file=sys.stderr)
    raise SystemExit(130) from None


def _failed_of_many(error: MusicrecError) -> None:
    """One run of a sweep failed: the others go on, and the sweep's table counts it."""
    print(f"error: {error}", file=sys.stderr)


def _fail(error: MusicrecError, *, is_silent: bool) -> NoReturn:
    if is_silent:  # the first process fails alike, and may be killed if another's status is not 0
        raise SystemExit(0)
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(2)


def _quiet() -> None:
    """Silence what libraries say to their own developers."""
    for logger in ("pytorch_lightning", "lightning_fabric", "alembic", "feast"):
        logging.getLogger(logger).setLevel(logging.WARNING)
    for text in (
        ".*does not have many workers.*",
        ".*number of training batches.*is smaller than the logging interval.*",
        ".*ended before the epoch ended and your dataloader is not resumable.*",
        ".*exists and is not empty.*",
        ".*Starting from v1.9.0.*",
        # The metrics of validation are the same on every rank: RankingMetrics gathers them.
        ".*It is recommended to use `self.log.*sync_dist=True.*",
        ".*`broadcast_buffers` is deprecated.*",  # its successor is newer than torch 2.6
        ".*isinstance.treespec.*",
        ".*`torch.jit.script` is deprecated.*",
    ):
        warnings.filterwarnings("ignore", text)
