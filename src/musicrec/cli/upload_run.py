"""``scripts/upload_run.py``: to MLflow with what it has missed of a run."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from musicrec.cli import door, flags, outputs, report
from musicrec.errors import ConfigError
from musicrec.registry import mlflow_server
from musicrec.registry.journal import JOURNAL, Journal
from musicrec.registry.shipping import Shipment


def upload(config: DictConfig) -> None:
    """Send a run's journal from where it stopped; once it has arrived, nothing more happens."""
    if config.run is None:
        raise ConfigError(
            "which run? say run=FOLDER, such as run=outputs/train/2026-01-31_12-00-00"
        )
    folder = Path(str(config.run)).absolute()
    if not (folder / JOURNAL).is_file():
        raise ConfigError(
            f"run={config.run}: there is no {JOURNAL} in {folder}; only a training with "
            "tracking=mlflow leaves one"
        )
    mlflow_server.check_installed()
    _claim(folder)
    _end(folder)
    shipment = Shipment(folder)
    was_done = shipment.is_done
    shipment.send()
    console = Console()
    if shipment.missing:
        gone = ", ".join(shipment.missing)
        report.say(console, f"not in the run folder any more, and left out: {gone}")
    state = "it was all there before" if was_done else "uploaded"
    report.say(console, f"{state}: {shipment.link() or shipment.server}")


def _claim(folder: Path) -> None:
    """Keep a training, and another upload, out of the folder meanwhile."""
    try:
        outputs.claim(folder, "last")
    except ConfigError as error:
        raise ConfigError(
            f"{folder} is still being trained or uploaded; a training sends its run by itself, "
            "once the server is back"
        ) from error


def _end(folder: Path) -> None:
    """A training that was killed could not say so."""
    journal = Journal(folder)
    if journal.told.start is not None and journal.told.ended is None:
        journal.end("KILLED")
    journal.close()


def main() -> None:
    door.run("upload_run", upload, flags.UPLOAD)
