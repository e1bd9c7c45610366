"""Checkpoints that are whole or not there.

Lightning writes a checkpoint to the temporary folder and moves it: on another file system a kill
in mid-save leaves half a file under the final name. This writes beside the target, syncs, and
renames.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import TorchCheckpointIO
from typing_extensions import override

from musicrec.errors import ConfigError
from musicrec.registry.whole import whole_file


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint reader and writer with an atomic write."""

    @override
    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        with whole_file(Path(path)) as file:
            torch.save(checkpoint, file)


def resume_path(ckpt_path: str | None, run_folder: Path) -> Path | None:
    """The checkpoint to go on from; ``last`` is this run folder's own.

    Raises:
        ConfigError: it is not there.
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
    return path
