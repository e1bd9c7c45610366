"""``scripts/materialize_features.py``: features from Postgres into Redis, as of a moment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from musicrec.cli import door, flags, report
from musicrec.cli.listens import step_bars
from musicrec.cli.moments import moment
from musicrec.database.engine import Dataset, open_dataset
from musicrec.database.redis_address import RedisAddress, redis_address
from musicrec.errors import ConfigError, nearest
from musicrec.features import upkeep
from musicrec.features.compute import window_end
from musicrec.features.materialize import alone
from musicrec.features.prune import prune
from musicrec.features.upkeep import OnProgress, Outcome, Step
from musicrec.features.views import BY_NAME, STORED, View


def materialize(config: DictConfig) -> None:
    """Bring the views of a dataset to ``as_of``, and say what became of each."""
    console = Console()
    if config.dataset is None:
        raise ConfigError("which dataset? add dataset=NAME, such as dataset=mine")
    views = chosen_views(config.views)
    as_of = datetime.now(UTC) if config.as_of is None else moment("as_of", config.as_of)
    since = None if config.backfill is None else moment("backfill", config.backfill)
    if as_of > datetime.now(UTC):
        raise ConfigError(f"as_of={config.as_of} lies in the future; leave it out for now")
    if config.cadence_hours is None:
        raise ConfigError("cadence_hours=null is no number of hours; leave it out for 24")
    cadence = timedelta(hours=config.cadence_hours)
    end = window_end(as_of, cadence)
    with open_dataset(str(config.dataset)) as dataset:
        first = _check_plays(dataset, end, cadence, console)
        if since is not None:  # ends before every play are of nothing
            since = max(since, window_end(first, cadence) - cadence)
        redis = redis_address()
        try:
            with alone(dataset):
                _bring(dataset, views, end, cadence, since, redis, console)
                if config.prune:
                    _prune(dataset, end, redis, console)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                "what is written is whole, and no watermark is ahead of it; go on with the same "
                "command"
            ) from None


def chosen_views(names: object) -> list[View]:
    """``views=``: ``all``, one name, a list of them, or several with commas between.

    Raises:
        ConfigError: there is no such view.
    """
    given = list(names) if OmegaConf.is_list(names) else str(names).split(",")  # type: ignore[call-overload]
    wanted = [str(name).strip() for name in given]
    if not wanted:
        raise ConfigError(f"views=[] names no view; known: all, {', '.join(BY_NAME)}")
    if wanted == ["all"]:
        return list(STORED)
    for name in wanted:
        if name not in BY_NAME:
            raise ConfigError(
                f"views={name}: there is no such view{nearest(name, BY_NAME)}; known: "
                f"all, {', '.join(BY_NAME)}"
            )
    return [view for view in STORED if view.name in wanted]


def _check_plays(dataset: Dataset, end: datetime, cadence: timedelta, console: Console) -> datetime:
    """The first play. Refuse a moment before it; point out one that is long after the last."""
    first, last = upkeep.plays(dataset)
    if first >= end:
        raise ConfigError(
            f"no play of {dataset.name} is before {_said(end)}, where the last window up to as_of "
            f"ends; its first play is of {_said(first)}, so say "
            f"as_of={window_end(first, cadence) + cadence:%Y-%m-%dT%H:%M} or later"
        )
    longest = max(view.window for view in STORED if view.window)
    if last < end - longest:
        report.say(
            console,
            f"note: the last play of {dataset.name} is of {_said(last)}, and no window up to "
            f"{_said(end)} reaches it; for its own time say "
            f"as_of={window_end(last, cadence) + cadence:%Y-%m-%dT%H:%M}",
        )
    return first


def _bring(
    dataset: Dataset,
    views: Sequence[View],
    end: datetime,
    cadence: timedelta,
    since: datetime | None,
    redis: RedisAddress,
    console: Console,
) -> None:
    with console.status("applying feature_repo/ to the registry"):
        store = upkeep.prepared(dataset, redis)
    with _bars(console) as on_progress:
        outcomes = upkeep.bring(
            dataset,
            views,
            end,
            store,
            redis,
            cadence=cadence,
            since=since,
            on_progress=on_progress,
        )
    console.print(_table(outcomes, f"{dataset.name} as of {_said(end)}, in Redis at {redis.place}"))
    if error := upkeep.stale(outcomes):
        raise error


def _prune(dataset: Dataset, end: datetime, redis: RedisAddress, console: Console) -> None:
    with _bars(console) as on_progress:
        pruned = prune(
            dataset.name,
            STORED,
            end,
            redis,
            lambda done, total: on_progress("all keys", "pruning", done, total),
        )
    report.say(console, f"pruned: {pruned:,} rows that had outlived their view's time to live")


@contextmanager
def _bars(console: Console) -> Iterator[OnProgress]:
    """A bar for each step of each view."""
    with step_bars(console) as on_step:

        def on_progress(view: str, step: Step, done: int, total: int) -> None:
            on_step(f"{step} {view}", done, total)

        yield on_progress


def _table(outcomes: Sequence[Outcome], title: str) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        caption="ends: windows computed; rows: written and read back; newer: kept, because Redis "
        "holds a later row",
        caption_justify="left",
    )
    table.add_column("view", no_wrap=True)
    for name in ("ends", "rows", "newer", "rows/s"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("up to (UTC)", no_wrap=True)
    for outcome in outcomes:
        cells = ["–", "–", "–"]
        if written := outcome.written:
            rate = written.rows / written.seconds
            cells = [f"{written.rows:,}", f"{written.newer:,}", f"{rate:,.0f}"]
        up_to = outcome.watermark
        if outcome.failure:
            state = f"{up_to:%Y-%m-%d} stale" if up_to else "never written"
        else:
            state = f"{up_to:%Y-%m-%d %H:%M}"
        style = "red" if outcome.failure else None
        table.add_row(outcome.view, f"{outcome.computed:,}", *cells, state, style=style)
    return table


def _said(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def main() -> None:
    door.run("materialize", materialize, flags.MATERIALIZE)
