"""``scripts/recommend_all.py``: recommendations for every listener of a dataset, ahead of time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from musicrec.cli import door, flags, outputs, report
from musicrec.cli.listens import Rate
from musicrec.cli.moments import moment
from musicrec.database.engine import Dataset, open_dataset
from musicrec.errors import ConfigError, DataError
from musicrec.registry.versions import resolve

if TYPE_CHECKING:
    from musicrec.features.online import OnlineStore
    from musicrec.registry.bundle import Bundle
    from musicrec.serving.ahead import Ahead
    from musicrec.serving.engine import Engine
    from musicrec.serving.keeping import Keeper
    from musicrec.serving.listeners import Done

#: How long Redis may take for one listener: here nobody waits for the answer.
_REDIS_SECONDS = 10.0

_BEFORE_EVERYTHING = datetime(1970, 1, 1, tzinfo=UTC)


def recommend_all(config: DictConfig) -> None:
    """Recommend for everybody, into the table ``recommendations`` or a Parquet file."""
    console = Console()
    as_of = _check(config)
    try:
        from musicrec.registry import bundle as bundles
        from musicrec.serving.ahead import Ahead
    except ImportError as error:
        raise ConfigError(
            f"cannot recommend for all here ({error}); install musicrec[serve]"
        ) from error
    now = as_of or datetime.now(UTC)
    bundle = bundles.load(resolve(config.bundle))
    seen = bundle.seen if config.seen is None else str(config.seen)
    with open_dataset(str(config.dataset)) as dataset:
        with console.status("reading the tracks and their features"):
            engine, store = _engine(config, bundle, dataset)
        if problem := engine.surveyed.problems.get("features"):
            report.say(
                console,
                "note: listeners without plays get what is popular of all time, because there is "
                f"no last week's: {problem}",
            )
        ahead = Ahead(engine, k=config.k, seen=seen, as_of=now, store=store)
        kept, seconds = _run(config, dataset, engine, ahead, as_of, console)
    where = f"table recommendations of {config.dataset}" if config.output is None else config.output
    if not kept and config.output is None:
        report.say(
            console,
            f"everybody has {config.k} of model version {engine.version} in the {where}; "
            "fresh_since=MOMENT makes older ones anew",
        )
        return
    report.say(
        console,
        f"recommended for {kept:,} listeners with model version {engine.version} as of "
        f"{now:%Y-%m-%d %H:%M} UTC, {'by the ranker' if store else 'in the order of SASRec'}, into "
        f"{where}: {kept / seconds:,.0f} users/s, {seconds:,.1f} s, at most "
        f"{outputs.peak_rss_mb():,.0f} MB of memory",
    )
    if ahead.unreadable_graphs:
        report.say(
            console,
            f"note: the interest graphs of {ahead.unreadable_graphs:,} listeners cannot be read, "
            "and they were answered without; make them anew with generate_interest_graph.py",
        )


def _run(
    config: DictConfig,
    dataset: Dataset,
    engine: Engine,
    ahead: Ahead,
    as_of: datetime | None,
    console: Console,
) -> tuple[int, float]:
    """Everybody, batch by batch: how many were kept, and the seconds it took."""
    from musicrec.serving.listeners import Listeners

    before = as_of if engine.surveyed.keys and engine.surveyed.keys.is_timed else None
    done = _done(config, engine)
    with (
        _keeper(config, dataset, engine) as keeper,
        Listeners(
            dataset, before, done, all_heard=ahead.reads_all_heard, graphs=ahead.reads_graphs
        ) as listeners,
        _bar(console, listeners.count()) as on_done,
    ):
        kept, start = 0, time.monotonic()
        try:
            for batch in listeners.batches(config.users_at_once):
                kept += keeper.keep(ahead.recommend(batch))
                on_done(len(batch))
        except KeyboardInterrupt:
            if config.output is not None:
                raise
            raise KeyboardInterrupt(
                f"the rows of {kept:,} listeners are kept; go on with the same command"
            ) from None
        return kept, time.monotonic() - start


def _check(config: DictConfig) -> datetime | None:
    """Everything that can be said before the work; the moment, None for now.

    Raises:
        ConfigError: names the setting.
    """
    if config.dataset is None:
        raise ConfigError("whose listeners? say dataset=NAME")
    for key in ("bundle", "k", "candidates", "users_at_once"):
        if config[key] is None:
            raise ConfigError(f"{key}=null makes no sense; leave it out for the default")
    for key, most in (("k", 200), ("users_at_once", 10_000)):
        if not 1 <= config[key] <= most:
            raise ConfigError(f"{key}={config[key]} is not within 1 to {most:,}")
    if config.seen not in (None, "keep", "drop"):
        raise ConfigError(f"seen={config.seen!r} is not one of keep, drop")
    if config.ranker not in (None, True, False):
        raise ConfigError(f"ranker={config.ranker!r} is not one of true, false")
    if config.fresh_since is not None:
        moment("fresh_since", config.fresh_since)
        if config.output is not None:
            raise ConfigError(
                "fresh_since= tells which rows of the table are kept; a file is written anew, so "
                "leave out one of output= and fresh_since="
            )
    outputs.check_writable(config.output)
    return None if config.as_of is None else moment("as_of", config.as_of)


def _engine(
    config: DictConfig, bundle: Bundle, dataset: Dataset
) -> tuple[Engine, OnlineStore | None]:
    """The model with what is known of its tracks; and the features, where a ranker reads them."""
    from musicrec.cli.interests import remembered_interests
    from musicrec.database.redis_address import redis_address
    from musicrec.features.online import OnlineStore
    from musicrec.features.plan import ReadPlan
    from musicrec.serving.engine import Surroundings, made_engine

    trained = bundle.ranker
    if config.ranker and trained is None:
        raise ConfigError(
            f"ranker=true: {config.bundle} has no ranker; train one with scripts/train_ranker.py, "
            "or leave ranker= out"
        )
    is_ranked = bool(trained and (trained.is_active if config.ranker is None else config.ranker))
    redis = redis_address()
    surroundings = Surroundings(
        dataset=dataset,
        redis=redis,  # what is popular, too, is read there
        interests_of=remembered_interests if is_ranked else None,
        num_candidates=config.candidates,
        ranker=is_ranked,
    )
    engine = made_engine(bundle, surroundings)
    problem = engine.surveyed.problems.get("features")
    if not is_ranked:
        return engine, None
    if problem is not None:
        raise ConfigError(
            f"the ranker needs online features, and they cannot be read: {problem}; or say "
            "ranker=false for SASRec's order"
        )
    return engine, OnlineStore(ReadPlan(dataset.name), redis, _REDIS_SECONDS)


def _done(config: DictConfig, engine: Engine) -> Done:
    """Who has what they need already: nobody, where a file is written."""
    from musicrec.serving.listeners import Done

    since = _BEFORE_EVERYTHING
    if config.fresh_since is not None:
        since = moment("fresh_since", config.fresh_since)
    return Done(config.k if config.output is None else -1, engine.version, since)


@contextmanager
def _keeper(config: DictConfig, dataset: Dataset, engine: Engine) -> Iterator[Keeper]:
    from musicrec.registry.whole import whole_file
    from musicrec.serving.keeping import ParquetKeeper, TableKeeper, only_one

    if config.output is None:
        keys = engine.surveyed.keys
        assert keys is not None
        place = np.flatnonzero(keys.item_of)
        key_of = np.zeros(engine.num_items + 1, np.int64)
        key_of[keys.item_of[place]] = place
        if missing := engine.num_items - len(place):
            raise DataError(
                f"{missing:,} of the {engine.num_items:,} tracks of {config.bundle} are not in "
                f"dataset {dataset.name!r}, and its table cannot name them; write a file: "
                "output=recommendations.parquet"
            )
        with only_one(dataset):
            yield TableKeeper(dataset, key_of, engine.version)
        return
    with (
        whole_file(Path(config.output)) as file,
        closing(ParquetKeeper(file, engine.bundle.catalogue, engine.version)) as keeper,
    ):
        yield keeper


@contextmanager
def _bar(console: Console, total: int) -> Iterator[Callable[[int], None]]:
    """A bar that is told how many listeners more are done."""
    with Progress(
        TextColumn("recommending"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(unit="users"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    ) as bar:
        task = bar.add_task("", total=total)
        yield lambda users: bar.advance(task, users)


def main() -> None:
    door.run("recommend_all", recommend_all, flags.RECOMMEND_ALL)
