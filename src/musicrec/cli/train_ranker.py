"""``scripts/train_ranker.py``: the second stage, learnt from the validation period alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from omegaconf import DictConfig
from rich.console import Console

from musicrec.cli import door, flags, outputs, ranker_report
from musicrec.cli.listens import OnStep, step_bars, streaming_bar
from musicrec.database.engine import Dataset, open_dataset
from musicrec.database.home import home
from musicrec.errors import ConfigError
from musicrec.interactions.sequence import play_counts
from musicrec.interactions.split import Split, Targets, leave_one_out, temporal
from musicrec.registry import bundle as bundles
from musicrec.registry.bundle import Bundle, commit
from musicrec.registry.versions import resolve
from musicrec.sources import snapshots, stream

if TYPE_CHECKING:
    from musicrec.interactions.snapshot import Snapshot
    from musicrec.serving.fitting import Recipe
    from musicrec.serving.past import Target
    from musicrec.serving.replay import Replay

_SPLITS: dict[str, Callable[..., Split]] = {"leave_one_out": leave_one_out, "temporal": temporal}

_RECIPE = (
    *("rounds", "learning_rate", "leaves", "least_rows", "l2", "columns_share"),
    *("truncation", "base", "folds", "seed"),
)

#: Groups of figures that also stand in the metrics of the whole bundle.
_GROUPS = ("unranked", "pipeline", "candidates")


def train_ranker(config: DictConfig) -> None:
    """Learn from validation, judge on test, and put the ranker into the bundle."""
    recipe = _check(config)
    bundle = bundles.load(resolve(config.bundle))
    protocol = bundle.metrics["protocol"]
    if protocol["refit"]:
        raise ConfigError(
            f"{config.bundle} was trained on everything at last (refit=true), so no target is left "
            "that it has not seen; train the model without refit, and then its ranker"
        )
    torch.set_num_threads(1)
    console = Console()
    name = str(config.dataset or protocol["dataset"])
    with open_dataset(name) as dataset, step_bars(console, unit="") as on_done:
        snapshot = _snapshot(dataset, bundle, config, console)
        split = _SPLITS[protocol["split"]](snapshot.sequences, **protocol["split_settings"])
        draw = np.random.default_rng(config.seed)
        periods = {
            period: _targets(snapshot, targets, config.targets, draw)
            for period, targets in (("val", split.val), ("test", split.test))
        }
        _compute(dataset, [*periods["val"], *periods["test"]], on_done)
        plays = play_counts(snapshot.sequences, split.train)[1:]
        replay = _replay(dataset, bundle, config, plays)
        trained = _trained(bundle, replay, recipe, periods, plays, on_done)
    _write(replace(bundle, ranker=trained, metrics=_merged(bundle, trained.metrics)), config)
    ranker_report.say(console, trained, Path(config.output or config.bundle))


def _check(config: DictConfig) -> Recipe:
    """Everything that can be said before the work.

    Raises:
        ConfigError: names the setting.
    """
    from musicrec.serving.fitting import Recipe, require_lightgbm
    from musicrec.serving.pipeline import Pipeline

    for key in ("bundle", "candidates", "targets", *_RECIPE):
        if config[key] is None:
            raise ConfigError(f"{key}=null makes no sense; leave it out for the default")
    if str(config.bundle).startswith("models:") and config.output is None:
        raise ConfigError(
            f"{config.bundle} is a registered version, which does not change; say output=PATH, and "
            "register what is written there"
        )
    if config.targets < 1:
        raise ConfigError(f"targets={config.targets} must be at least 1")
    Pipeline(num_candidates=config.candidates)
    outputs.check_writable(config.output or config.bundle)
    require_lightgbm()
    return Recipe(**{key: config[key] for key in _RECIPE})


def _snapshot(dataset: Dataset, bundle: Bundle, config: DictConfig, console: Console) -> Snapshot:
    """The very listens that the model was trained and judged on.

    Raises:
        DataError: the dataset is untimed.
        ConfigError: the dataset holds other listens now, and no snapshot of those is left.
    """
    from musicrec.features import upkeep

    upkeep.plays(dataset)  # refuses an untimed dataset
    folder = home() / "snapshots"
    kept = snapshots.with_fingerprint(folder, dataset.name, bundle.data_fingerprint)
    if kept is not None:
        return kept
    with streaming_bar(console) as on_progress:
        current = stream.snapshot(dataset, folder, on_progress)
    if current.facts.fingerprint != bundle.data_fingerprint:
        raise ConfigError(
            f"{config.bundle} was trained on other listens than dataset {dataset.name!r} holds, "
            f"and {folder} has no snapshot of them any more; train the model again, or say which "
            "dataset="
        )
    return current


def _targets(
    snapshot: Snapshot, targets: Targets, most: int, draw: np.random.Generator
) -> list[Target]:
    """``most`` of a period's targets, or all of them."""
    from musicrec.serving.past import Target

    sequences, user_ids = snapshot.sequences, snapshot.user_ids()
    chosen = np.sort(draw.permutation(len(targets))[:most])
    listeners, positions = targets.listeners[chosen], targets.positions[chosen]
    places = sequences.offsets[listeners] + positions
    return [
        Target(user_ids[listener], at, item)
        for listener, at, item in zip(
            listeners.tolist(),
            sequences.times[places].tolist(),
            sequences.items[places].tolist(),
            strict=True,
        )
    ]


def _compute(dataset: Dataset, targets: Sequence[Target], on_done: OnStep) -> None:
    """The windows that the targets need and that were not computed yet."""
    from musicrec.features import upkeep
    from musicrec.serving.replay import end_before

    ends = [end_before(target.moment) for target in targets]

    def on_progress(view: str, step: str, done: int, total: int) -> None:
        on_done(f"{step} {view}", done, total)

    upkeep.compute_ends(dataset, min(ends), max(ends), on_progress=on_progress)


def _replay(
    dataset: Dataset, bundle: Bundle, config: DictConfig, plays: np.ndarray[Any, Any]
) -> Replay:
    from musicrec.serving.past import PastListening
    from musicrec.serving.pipeline import Pipeline
    from musicrec.serving.ranker import log_plays_of
    from musicrec.serving.replay import Replay
    from musicrec.serving.scoring import Scoring
    from musicrec.serving.track_keys import read_keys

    interests = None
    if _has_graphs(dataset):
        from musicrec.cli.interests import remembered_interests

        interests = remembered_interests(dataset, bundle.catalogue)
    return Replay(
        dataset=dataset,
        catalogue=bundle.catalogue,
        scoring=Scoring(bundle.model),
        seen=bundle.seen,
        pipeline=Pipeline(num_candidates=config.candidates),
        past=PastListening(dataset, read_keys(dataset, bundle.catalogue.track_ids), interests),
        log_plays=log_plays_of(plays),
    )


def _has_graphs(dataset: Dataset) -> bool:
    with dataset.engine.connect() as connection:
        return bool(
            connection.exec_driver_sql("SELECT EXISTS (SELECT FROM user_interest_graph)").scalar()
        )


def _trained(
    bundle: Bundle,
    replay: Replay,
    recipe: Recipe,
    periods: dict[str, list[Target]],
    plays: np.ndarray[Any, Any],
    on_done: OnStep,
) -> bundles.TrainedRanker:
    """Cross-fitted on validation, fitted to all of it, and only then measured on test, once."""
    from musicrec.serving import fitting, verdict

    def asked(period: str) -> Iterator[Any]:
        done, total = 0, len(periods[period])
        on_done(f"asking {period}", 0, total)

        def on_asked(num: int) -> None:
            nonlocal done
            done += num
            on_done(f"asking {period}", done, total)

        return replay.questions(periods[period], on_asked)

    val = list(asked("val"))
    on_done("growing trees", 0, recipe.folds + 1)
    scores = fitting.cross_fitted(
        val, recipe, lambda fold: on_done("growing trees", fold, recipe.folds + 1)
    )
    metrics: dict[str, Any] = verdict.named(
        verdict.metrics_of(list(map(verdict.outcome, val, scores))), "val"
    )
    booster = fitting.fit(val, recipe)
    on_done("growing trees", recipe.folds + 1, recipe.folds + 1)
    num_val = len(val)
    del val, scores
    test = [
        verdict.outcome(question, fitting.scores_of(booster, recipe, [question])[0])
        for question in asked("test")
    ]
    metrics |= verdict.named(verdict.metrics_of(test), "test")
    metrics |= {f"gain/{group}": share for group, share in fitting.gains(booster).items()}
    metrics["protocol"] = bundle.metrics["protocol"] | {
        "val_targets": num_val,
        "test_targets": len(test),
        "candidates": replay.pipeline.num_candidates,
        "recipe": {key: getattr(recipe, key) for key in _RECIPE},
        "ranker_commit": commit(),
    }
    won = metrics.get("val/pipeline/lead_ndcg_10_low", 0.0) > 0
    return fitting.trained_ranker(booster, recipe, plays, metrics, is_active=won)


def _merged(bundle: Bundle, metrics: dict[str, Any]) -> dict[str, Any]:
    """The bundle's own with the pipeline's beside them."""
    names = {f"{period}/{group}" for period in ("val", "test") for group in _GROUPS}

    def is_of_pipeline(key: str) -> bool:
        return "/".join(key.split("/")[:2]) in names

    own = {key: value for key, value in bundle.metrics.items() if not is_of_pipeline(key)}
    return own | {key: value for key, value in metrics.items() if is_of_pipeline(key)}


def _write(bundle: Bundle, config: DictConfig) -> None:
    path = Path(config.output or config.bundle)
    bundles.save(bundle, path)
    outputs.write_json(bundle.metrics, path.with_name("metrics.json"))


def main() -> None:
    door.run("train_ranker", train_ranker, flags.TRAIN_RANKER)
