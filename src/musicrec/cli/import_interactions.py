"""``scripts/import_interactions.py``: a file of listens into Postgres."""

from __future__ import annotations

from omegaconf import DictConfig
from rich.console import Console

from musicrec.cli import door, flags, report
from musicrec.cli.listens import dataset_for, dataset_name, import_with_bar, source_of, summary_line
from musicrec.errors import ConfigError


def import_interactions(config: DictConfig) -> None:
    """Import the source named by the data group into ``dataset=``."""
    console = Console()
    source = source_of(config)
    if source is None:
        raise ConfigError("data=postgres is already in Postgres; name a format, such as data=table")
    with dataset_for(dataset_name(config, source), source) as dataset:
        summary = import_with_bar(dataset, source, console)
        report.say(console, summary_line(summary, dataset))
        if summary.rows_rejected:
            report.say(console, f"which and why: table {dataset.name}.rejected_rows")
        train = f'make train ARGS="data=postgres dataset={dataset.name}"'
        report.say(console, f"next: {train}")


def main() -> None:
    door.run("import", import_interactions, flags.IMPORT)
