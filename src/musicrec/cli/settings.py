"""A training's settings, checked before the work they would spoil."""

from __future__ import annotations

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from musicrec.cli import outputs
from musicrec.errors import ConfigError, nearest
from musicrec.interactions.snapshot import Snapshot
from musicrec.metrics.ranking import metric_names


def check(config: DictConfig) -> None:
    """What no constructor further down would refuse in time.

    Raises:
        ConfigError: names the setting.
    """
    known = [f"val/{name}" for name in metric_names()]
    if config.monitor not in known:
        raise ConfigError(
            f"monitor={config.monitor} is no validation metric{nearest(config.monitor, known)}; "
            "such as val/ndcg_10 or val/hit_rate_20"
        )
    if config.seed < 0:
        raise ConfigError(f"seed={config.seed} must not be negative")
    if config.popularity_days <= 0:
        raise ConfigError(f"popularity_days={config.popularity_days} must be above 0")
    for key in ("patience", "trainer.max_epochs"):
        if OmegaConf.select(config, key) < 1:
            raise ConfigError(f"{key}={OmegaConf.select(config, key)} must be at least 1")
    if config.num_workers < 0:
        raise ConfigError(f"num_workers={config.num_workers} must be 0 or more")
    outputs.check_writable(config.output)


def check_together(config: DictConfig, device: str) -> None:
    """What several processes cannot do.

    Args:
        device: the type of their devices, such as ``cpu`` or ``cuda``.

    Raises:
        ConfigError: names the setting.
    """
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        raise ConfigError(
            "a sweep trains each combination in one process; say trainer=auto, or train the "
            "combinations one by one"
        )
    if device != "cpu" and config.loss._target_.endswith(".SampledSoftmax"):
        raise ConfigError(
            "loss=sampled has a sparse gradient, which NCCL cannot sum over several GPUs; say "
            "trainer.devices=1, or loss=full"
        )


def check_listener(config: DictConfig, snapshot: Snapshot) -> None:
    """``listener=``, as soon as it is known who there is.

    Raises:
        ConfigError: the dataset has no such listener.
    """
    if config.listener is not None and str(config.listener) not in snapshot.user_ids():
        raise ConfigError(
            f"listener={config.listener} is not in dataset {snapshot.facts.dataset!r}; leave "
            "it out to see whoever has most plays"
        )
