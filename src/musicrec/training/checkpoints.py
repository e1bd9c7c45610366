"""Checkpoints that are whole or not there, and what to do with one that was damaged later.

Lightning writes a checkpoint to the temporary folder and moves it: on another file system a kill
in mid-save leaves half a file under the final name. This writes beside the target, syncs, and
renames. ``last.ckpt`` first becomes ``previous.ckpt``, so that a disk that loses a part of one
leaves the other.

After what torch.save writes come 16 bytes more, BLAKE2b over all before them, which torch.load
passes over; ``is_whole`` compares them without unpickling anything. The CRCs of torch's own zip
archive would not do: some flipped bytes of its headers pass them and change what is loaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch
from lightning_fabric.plugins import TorchCheckpointIO

from musicrec.errors import ConfigError
from musicrec.registry.whole import whole_file

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"

DIGEST_BYTES = 16


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint reader and writer with an atomic write that keeps the last but one."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        target = Path(path)
        with whole_file(target) as file:
            digested = _Digested(file)
            torch.save(checkpoint, cast(IO[bytes], digested))
            file.write(digested.digest.digest())
            # Only now, so that a kill while writing leaves both. One right here leaves the
            # previous one alone, which is as good as a damaged last one.
            if target.name == LAST and target.exists():
                target.replace(target.with_name(PREVIOUS))


class _Digested:
    """A file to write to that hashes what goes through."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.digest = hashlib.blake2b(digest_size=DIGEST_BYTES)

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def is_whole(path: Path) -> bool:
    """Whether every byte is there and as it was written."""
    if not path.is_file():
        return False
    digest, remaining = hashlib.blake2b(digest_size=DIGEST_BYTES), path.stat().st_size
    with path.open("rb") as file:
        while remaining > DIGEST_BYTES:
            block = file.read(min(remaining - DIGEST_BYTES, 1 << 22))
            if not block:  # somebody cuts it off as we read
                return False
            digest.update(block)
            remaining -= len(block)
        return file.read() == digest.digest()


def resume_path(ckpt_path: str | None, run_folder: Path) -> Path | None:
    """The checkpoint to go on from; ``last`` is this run folder's own.

    Where ``last.ckpt`` is damaged, or missing because a kill came between two renames, it is
    ``previous.ckpt``: the caller should say so.

    Raises:
        ConfigError: there is none, none is whole, the best epoch so far is damaged, or it belongs
            to another run folder, whose best epoch would be lost.
    """
    if ckpt_path is None:
        return None
    last = run_folder / "checkpoints" / LAST
    path = last if ckpt_path == "last" else Path(ckpt_path)
    previous = path.with_name(PREVIOUS)
    if not path.is_file() and not (path.name == LAST and previous.is_file()):
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
    best = path.with_name(BEST)
    if best.exists():
        check_whole(best)
    if path.name == LAST and not is_whole(path):
        if not is_whole(previous):
            state = "damaged too" if previous.exists() else "not there yet"
            raise ConfigError(
                f"ckpt_path={ckpt_path}: {path} is damaged (its checksum does not match) and "
                f"{PREVIOUS} beside it is {state}; start anew in another hydra.run.dir"
            )
        return previous
    check_whole(path)
    return path


def put_back(path: Path) -> Path:
    """``previous.ckpt`` as ``last.ckpt``; any other checkpoint stays where it is.

    Left where they are, the next save would keep the damaged last one in place of the whole one
    before it.
    """
    return path.replace(path.with_name(LAST)) if path.name == PREVIOUS else path


def check_whole(path: Path) -> None:
    """Refuse a checkpoint that is missing or damaged.

    Raises:
        ConfigError: names it.
    """
    if not path.exists():
        raise ConfigError(f"{path} is missing; start anew in another hydra.run.dir")
    if not is_whole(path):
        raise ConfigError(
            f"{path} is damaged (its checksum does not match); put back a copy of it, or start "
            "anew in another hydra.run.dir"
        )


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
