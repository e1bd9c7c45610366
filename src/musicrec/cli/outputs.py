"""What a run leaves behind besides the model: numbers and the protocol that gives them meaning."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from musicrec.errors import ConfigError
from musicrec.interactions.snapshot import Snapshot
from musicrec.interactions.split import cold_counts
from musicrec.registry.bundle import commit
from musicrec.registry.whole import whole_file

if TYPE_CHECKING:  # Lightning takes seconds to import, and answering needs none of it
    from musicrec.training.datamodule import ListeningDataModule


def protocol(config: DictConfig, data: ListeningDataModule) -> dict[str, Any]:
    """Everything without which the metrics are gossip."""
    sequences, facts = data.snapshot.sequences, data.snapshot.facts
    settings = OmegaConf.to_container(config.split)
    assert isinstance(settings, dict)
    return {
        "dataset": facts.dataset,
        "split": data.split.name,
        "split_settings": {k: v for k, v in settings.items() if k != "_target_"},
        "seen": config.seen,
        "catalogue": facts.catalogue_size,
        "users": len(data.split.test),
        "listeners": facts.num_listeners,
        "interactions": facts.num_interactions,
        **cold_counts(sequences, data.split),
        "popularity_days": config.popularity_days if facts.timed else None,
        "seed": config.seed,
        "refit": config.refit,
        "data_fingerprint": facts.fingerprint,
        "commit": commit(),
    }


def identity(config: DictConfig, snapshot: Snapshot) -> dict[str, Any]:
    """What a resumed run must share with the one it goes on from: settings and data.

    How long to train (``trainer.max_epochs``, ``patience``) and on what (device, number of
    processes and workers) is not among it.
    """
    decisive = ("model", "loss", "split", "optimizer", "seen", "seed", "batch_size", "windows")
    chosen = {key: value for key, value in flat(config).items() if key.split(".")[0] in decisive}
    trainer = {
        f"trainer.{key}": config.trainer.get(key)
        for key in ("precision", "accumulate_grad_batches", "gradient_clip_val")
    }
    return chosen | trainer | {"data_fingerprint": snapshot.facts.fingerprint}


#: Descriptors of the locks on this process's run folders, held until it ends.
_claims: list[int] = []


def claim(folder: Path, ckpt_path: str | None) -> None:
    """Keep every other training out of a run folder until this process ends, however it ends.

    Raises:
        ConfigError: another training runs there, or one has finished there and none is resumed.
    """
    # A POSIX lock: unlike flock's, a forked loader worker does not keep it after a kill.
    lock = os.open(folder / "run.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise ConfigError(
            f"another training is writing into {folder}; wait for its end, or give this one "
            "another hydra.run.dir"
        ) from error
    _claims.append(lock)
    if ckpt_path is None and (folder / "model.pt").exists():
        raise ConfigError(
            f"{folder} holds a finished run's model.pt; give this one another hydra.run.dir"
        )


def peak_rss_mb() -> float:
    """Most memory this process ever held, in MB of 10^6 bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6


def check_writable(path: str | None) -> None:
    """Find out before the work, not after it.

    Raises:
        ConfigError: ``output=`` is a folder, or nothing can be written where it should go.
    """
    if path is None:
        return
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        writable = os.access(target.parent, os.W_OK) and not target.is_dir()
    except OSError:
        writable = False
    if not writable:
        raise ConfigError(f"output={path}: no file can be written there; give another path")


def write_json(content: Mapping[str, Any], path: Path) -> None:
    """``content`` as indented JSON; a reader never sees half of it."""
    with whole_file(path) as file:
        file.write(
            (json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
        )


def flat(config: DictConfig) -> dict[str, Any]:
    """Settings as ``group.key: value``, for TensorBoard's table of hyperparameters."""

    def walk(node: Any, prefix: str) -> dict[str, Any]:
        if not isinstance(node, dict):
            return {prefix: node if isinstance(node, bool | int | float) else str(node)}
        parts = (walk(value, f"{prefix}.{key}" if prefix else key) for key, value in node.items())
        return {key: value for part in parts for key, value in part.items()}

    return walk(OmegaConf.to_container(config, resolve=True), "")


def numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The metrics that are numbers."""
    return {key: value for key, value in metrics.items() if isinstance(value, int | float)}
