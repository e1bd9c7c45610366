"""Which dataset a command works on, and getting the listens into it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from sqlalchemy import select

from musicrec.database.engine import Dataset, dataset_names, drop_dataset, open_dataset
from musicrec.database.tables import Import
from musicrec.errors import ConfigError
from musicrec.interactions.source import Source
from musicrec.sources.loader import ImportSummary, import_source
from musicrec.sources.loader import Progress as Imported
from musicrec.sources.synthetic import SyntheticWorld


def source_of(config: DictConfig) -> Source | None:
    """The source the data group names; None where the listens are in Postgres already."""
    if "_target_" not in config.data:
        return None
    source: Source = instantiate(config.data)
    return source


def dataset_name(config: DictConfig, source: Source | None) -> str:
    """``dataset=``, or the synthetic world's own: ``synthetic`` for the default world.

    Raises:
        ConfigError: no name is given, or one is given for the synthetic world, which must not mix
            with imported listens.
    """
    if isinstance(source, SyntheticWorld):
        if config.dataset is not None:
            raise ConfigError(
                f"dataset={config.dataset} cannot be used with data=synthetic, which keeps its "
                "own dataset; leave dataset= out, or say data=postgres"
            )
        fingerprint = source.fingerprint()
        if fingerprint == SyntheticWorld().fingerprint():
            return "synthetic"
        return f"synthetic_{fingerprint[:8]}"
    if config.dataset is None:
        raise ConfigError("which dataset? add dataset=NAME, such as dataset=mine")
    return str(config.dataset)


def is_imported(dataset: Dataset, source: Source) -> bool:
    """Whether this very source, read with these settings, was imported to its end."""
    finished = select(Import.finished_at).where(Import.fingerprint == source.fingerprint())
    with dataset.engine.connect() as connection:
        return connection.scalar(finished) is not None


@contextmanager
def dataset_for(name: str, source: Source | None) -> Iterator[Dataset]:
    """The dataset, made if there is a source to fill it; gone again if nothing came of that.

    A new dataset into which nothing at all was imported, because the source was refused, would
    only stand in the list of datasets and puzzle.
    """
    is_new = source is not None and name not in dataset_names()
    try:
        with open_dataset(name, create=source is not None) as dataset:
            yield dataset
    except BaseException:
        if is_new and name in dataset_names() and _holds_no_import(name):
            drop_dataset(name)
        raise


def _holds_no_import(name: str) -> bool:
    with open_dataset(name) as dataset, dataset.engine.connect() as connection:
        return connection.scalar(select(Import.fingerprint).limit(1)) is None


def import_with_bar(dataset: Dataset, source: Source, console: Console) -> ImportSummary:
    """Import under a progress bar with rows a second and the time left."""
    columns = (
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rows]:,} rows"),
        Rate("rows"),
    )
    with Progress(
        TextColumn("importing"), *columns, TimeRemainingColumn(), console=console, transient=True
    ) as bar:
        task = bar.add_task("", total=source.total_bytes(), rows=0)

        def on_progress(now: Imported) -> None:
            bar.update(task, completed=now.bytes_read, total=now.total_bytes, rows=now.rows_read)

        return import_source(dataset, source, on_progress=on_progress)


#: Told what is done: the step, how much of it, and of how much.
OnStep = Callable[[str, int, int], None]


class Rate(ProgressColumn):
    """Rows a second since the start; ``field`` names where a task counts its rows."""

    def __init__(self, field: str | None = None, unit: str = "rows") -> None:
        super().__init__()
        self.field = field
        self.unit = unit

    def render(self, task: Any) -> str:
        rows = task.fields[self.field] if self.field else task.completed
        return f"{rows / task.elapsed:,.0f} {self.unit}/s" if task.elapsed else ""


@contextmanager
def streaming_bar(console: Console) -> Iterator[Callable[[int, int], None]]:
    """A bar for the read from Postgres; appears with the first rows."""
    with Progress(
        TextColumn("streaming from Postgres"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    ) as bar:
        task = bar.add_task("", total=None, visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)


def summary_line(summary: ImportSummary, dataset: Dataset) -> str:
    """What an import did, in one line."""
    line = (
        f"imported {summary.source} into {dataset.name}: {summary.rows_read:,} rows read, "
        f"{summary.rows_added:,} added, {summary.rows_known:,} already known, "
        f"{summary.rows_rejected:,} rejected, {summary.users_added:,} new users, "
        f"{summary.tracks_added:,} new tracks, {summary.seconds:.1f} s"
    )
    reasons = (f"{reason}: {count:,}" for reason, count in summary.reasons.items())
    return line + (" (" + "; ".join(reasons) + ")" if summary.reasons else "")


@contextmanager
def step_bars(console: Console, unit: str = "rows") -> Iterator[OnStep]:
    """A bar for each step of some work, which is gone when the next begins."""
    columns = (BarColumn(), MofNCompleteColumn(), Rate(unit=unit), TimeRemainingColumn())
    with Progress(
        TextColumn("{task.description}"), *columns, console=console, transient=True
    ) as bars:

        def on_step(step: str, done: int, total: int) -> None:
            if [task.description for task in bars.tasks] != [step]:
                for old in bars.task_ids:
                    bars.remove_task(old)
                bars.add_task(step)
            bars.update(bars.task_ids[0], completed=done, total=total)

        yield on_step
