"""Checkpoints that are whole or not there.

Lightning writes a checkpoint to the temporary folder and moves it: on another file system a kill
in mid-save leaves half a file under the final name. This writes beside the target, syncs, and
renames.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import TorchCheckpointIO

from musicrec.errors import ConfigError
from musicrec.registry.whole import whole_file


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint reader and writer with an atomic write."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        with whole_file(Path(path)) as file:
            torch.save(checkpoint, file)


def resume_path(ckpt_path: str | None, run_folder: Path) -> Path | None:
    """The checkpoint to go on from; ``last`` is this run folder's own.

    Raises:
        ConfigError: it is not there, or belongs to another run folder, whose best epoch so far
            would be lost.
    """
    if ckpt_path is None:
        return None
    last = run_folder / "checkpoints" / "last.ckpt"
    path = last if ckpt_path == "last" else Path(ckpt_path)
    if not path.is_file():
        raise ConfigError(
            f"ckpt_path={ckpt_path}: there is no checkpoint at {path}; give the path of a "
            "checkpoints/last.ckpt, or ckpt_path=last with the hydra.run.dir of the stopped run"
        )
    if path.parent.name != "checkpoints":
        raise ConfigError(
            f"ckpt_path={ckpt_path} is not the checkpoints/last.ckpt of a run; only those resume"
        )
    if path.resolve().parent.parent != run_folder.resolve():
        raise ConfigError(
            f"ckpt_path={ckpt_path} belongs to the run in {path.resolve().parent.parent}; resume "
            f"it there: add hydra.run.dir={path.parent.parent}"
        )
    return path


def check_identity(path: Path, identity: Mapping[str, Any]) -> None:
    """Refuse to go on from a checkpoint of other settings or other data.

    Args:
        path: a checkpoint.
        identity: what makes this run this run, as ``callbacks.Identity`` wrote it.

    Raises:
        ConfigError: the file cannot be read, or the first setting that differs.
    """
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)["identity"]
    except Exception as error:  # torch raises anything from RuntimeError to UnpicklingError here
        raise ConfigError(
            f"ckpt_path: {path} is no checkpoint of a training ({type(error).__name__}); "
            "start anew without ckpt_path"
        ) from error
    for key in {**stored, **identity}:
        if stored.get(key) != identity.get(key):
            raise ConfigError(
                f"ckpt_path: {path} was trained with {key}={stored.get(key)}, now it is "
                f"{identity.get(key)}; use the same settings and data, or start anew"
            )
