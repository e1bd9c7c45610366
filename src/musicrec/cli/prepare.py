"""What happens once before a training, however many processes it has."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console

from musicrec.cli import outputs, report, settings
from musicrec.cli.listens import (
    dataset_for,
    dataset_name,
    import_with_bar,
    is_imported,
    source_of,
    streaming_bar,
    summary_line,
)
from musicrec.database.home import home
from musicrec.sources import stream
from musicrec.training import checkpoints


class Start(NamedTuple):
    """Where a training begins; every rank is told.

    Attributes:
        folder: the run's, claimed by this process.
        dataset: its name.
        snapshot: the folder of the snapshot.
        identity: what every checkpoint of this run bears, and one to resume from must.
        resume_from: a checkpoint, if the run is resumed.
    """

    folder: Path
    dataset: str
    snapshot: Path
    identity: dict[str, Any]
    resume_from: Path | None


def prepare(config: DictConfig, console: Console) -> Start:
    """Claim the run folder, import the listens if needed, and stream them into a snapshot."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    outputs.claim(folder, config.ckpt_path)
    resume_from = checkpoints.resume_path(config.ckpt_path, folder)
    if resume_from is not None and resume_from.name == checkpoints.PREVIOUS:
        print(
            f"warning: {resume_from.with_name(checkpoints.LAST)} is damaged or missing; going on "
            f"from {checkpoints.PREVIOUS} beside it, the checkpoint before",
            file=sys.stderr,
        )
    source = source_of(config)
    name = dataset_name(config, source)
    with dataset_for(name, source) as dataset:
        if source is not None and not is_imported(dataset, source):
            summary = import_with_bar(dataset, source, console)
            report.say(console, summary_line(summary, dataset))
        with streaming_bar(console) as on_progress:
            snapshot = stream.snapshot(dataset, home() / "snapshots", on_progress)
    settings.check_listener(config, snapshot)
    identity = outputs.identity(config, snapshot)
    if resume_from is not None:
        checkpoints.check_identity(resume_from, identity)
        resume_from = checkpoints.put_back(resume_from)
    return Start(folder, name, snapshot.folder.absolute(), identity, resume_from)
