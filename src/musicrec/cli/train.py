"""``scripts/train_transformer.py``: listens in, a judged model out."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Callback, Trainer
from rich.console import Console

from musicrec.cli import door, flags, outputs, report, settings, tracking
from musicrec.cli.listens import source_of
from musicrec.cli.prepare import Start, prepare
from musicrec.errors import ConfigError, MusicrecError
from musicrec.interactions.sequence import play_counts, transitions
from musicrec.interactions.snapshot import Snapshot
from musicrec.interactions.source import Source
from musicrec.models.losses import SampledSoftmax
from musicrec.registry import bundle as bundles
from musicrec.registry.bundle import Bundle
from musicrec.serving.recommender import Recommender
from musicrec.sources.synthetic import SyntheticWorld
from musicrec.training import callbacks
from musicrec.training.checkpoints import AtomicCheckpointIO, check_whole
from musicrec.training.datamodule import ListeningDataModule
from musicrec.training.evaluation import Judgement, check_seen
from musicrec.training.judgement import (
    best_baseline,
    comparison,
    judge_baselines,
    judge_model,
    judge_oracle,
)
from musicrec.training.launch import trains_together
from musicrec.training.module import NextItemModule
from musicrec.training.ranks import Ranks


def train(config: DictConfig) -> float:
    """Import if needed, train, judge, bundle, and say what came of it.

    Returns:
        The monitored metric on validation, for a sweep.
    """
    settings.check(config)
    tracking.check(config)
    meeting = _trainer(config, logger=False, enable_checkpointing=False)
    if meeting.world_size > 1:
        settings.check_together(config, meeting.strategy.root_device.type)
    with Ranks(meeting) as ranks:
        return _train(config, ranks)


def _train(config: DictConfig, ranks: Ranks) -> float:
    console = Console(quiet=not ranks.is_first)
    start = ranks.first(lambda: prepare(config, console))
    data = ranks.everywhere(lambda: data_module(config, lambda: Snapshot.open(start.snapshot)))
    module = new_module(config, data)
    with tracking.Tracked(config, start, is_first=ranks.is_first) as tracked:
        trainer = ranks.take_in(
            _trainer(
                config,
                *_watchers(config, start),
                default_root_dir=str(start.folder),
                logger=tracked.loggers,
                plugins=[AtomicCheckpointIO()],
            )
        )
        _fit(trainer, module, data, start.resume_from)
        metrics, verdict = ranks.first(lambda: _judged(config, trainer, module, data, tracked))
        if config.refit:
            module = _refit(config, data, ranks, start.folder, metrics["train/best_epoch"])
        if ranks.is_first:
            bundle = _bundle(module, data, config, metrics)
            _write(bundle, start.folder, config)
            trainer.logger.log_hyperparams(outputs.flat(config), outputs.numbers(metrics))  # type: ignore[union-attr]
            tracked.finish(metrics, trainer.global_step)
            console.print(report.results_table(metrics))
            report.say(console, verdict)
            _show_listener(bundle, data, config, console)
            report.say_next(console, start.folder, start.dataset)
    return float(metrics[config.monitor])


def data_module(config: DictConfig, stream: Callable[[], Snapshot]) -> ListeningDataModule:
    """What is trained on and asked, of the snapshot that ``stream`` gives."""
    data = ListeningDataModule(
        stream=stream,
        split=instantiate(config.split, _partial_=True),
        max_length=config.model.max_length,
        batch_size=config.batch_size,
        eval_memory_mb=config.eval_memory_mb,
        dim=config.model.dim,
        num_workers=config.num_workers,
        seed=config.seed,
        which_windows=config.windows,
    )
    data.setup()
    return data


def new_module(config: DictConfig, data: ListeningDataModule) -> NextItemModule:
    """The untrained model, its weights drawn from the seed."""
    torch.manual_seed(config.seed)
    loss, sequences = instantiate(config.loss), data.snapshot.sequences
    if isinstance(loss, SampledSoftmax):
        loss.propose(torch.from_numpy(play_counts(sequences, data.training_prefix)))
    model = instantiate(config.model, catalogue_size=data.snapshot.facts.catalogue_size)
    for lag in range(len(model.transitions)):
        before, after = transitions(sequences, data.training_prefix, lag)
        model.remember(torch.from_numpy(before), torch.from_numpy(after), lag)
    return NextItemModule(
        model,
        loss,
        seen=check_seen(config.seen),
        seed=config.seed,
        **cast(dict[str, Any], OmegaConf.to_container(config.optimizer)),
    )


def _trainer(config: DictConfig, *watchers: Callback, **more: Any) -> Trainer:
    """Lightning's trainer as the group ``trainer`` has it, with a bar where a person watches.

    Raises:
        ConfigError: the settings or the launcher's environment do not fit this machine.
    """
    bar = callbacks.progress_bar()
    more |= {"callbacks": [*watchers, *bar], "enable_progress_bar": bool(bar)}
    try:
        trainer: Trainer = instantiate(config.trainer, **more, _convert_="object")
    except InstantiationException as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise ConfigError(f"trainer={_option('trainer')}: {reason}") from error
    return trainer


def _option(group: str) -> str:
    return str(HydraConfig.get().runtime.choices[group])


def _watchers(config: DictConfig, start: Start) -> list[Callback]:
    checkpoints = start.folder / "checkpoints"
    return [
        callbacks.BestCheckpoint(checkpoints, config.monitor),
        callbacks.LastCheckpoint(checkpoints, config.checkpoint_every_steps),
        callbacks.PatientStopping(config.monitor, config.patience),
        callbacks.Identity(start.identity),
        callbacks.EpochLines(),
    ]


def _fit(
    trainer: Trainer, module: NextItemModule, data: ListeningDataModule, resume_from: Path | None
) -> None:
    try:
        trainer.fit(module, datamodule=data, ckpt_path=resume_from, weights_only=True)
    except SystemExit:  # how Lightning ends after a Ctrl-C
        folder = os.path.relpath(trainer.default_root_dir)
        raise KeyboardInterrupt(
            f"go on with the same command and ckpt_path=last hydra.run.dir={folder}"
        ) from None


def _restore_best(trainer: Trainer, module: NextItemModule) -> int:
    """Load the epoch that validation chose; its number, from 1."""
    best = trainer.checkpoint_callback.best_model_path  # type: ignore[union-attr]
    if not best:
        raise MusicrecError("no epoch was validated, so there is no model to keep")
    check_whole(Path(best))
    checkpoint = torch.load(best, map_location="cpu", weights_only=True)
    module.load_state_dict(checkpoint["state_dict"])
    module.to(trainer.strategy.root_device)  # Lightning has moved it to the CPU
    return int(checkpoint["epoch"]) + 1


def _judged(
    config: DictConfig,
    trainer: Trainer,
    module: NextItemModule,
    data: ListeningDataModule,
    tracked: tracking.Tracked,
) -> tuple[dict[str, Any], str]:
    """What ``metrics.json`` holds, and a sentence on it."""
    epochs = _restore_best(trainer, module)
    judged = _judge(module, data, source_of(config), config)
    tracked.judged(judged["model"].ranks)
    metrics = _metrics(judged, data, module, config, epochs)
    return metrics, report.verdict(metrics, best_baseline(judged))


def _judge(
    module: NextItemModule, data: ListeningDataModule, source: Source | None, config: DictConfig
) -> dict[str, Judgement]:
    """The model (as ``model`` on test, ``val`` on validation), the baselines and the oracle."""
    seen = check_seen(config.seen)
    questions = data.questions(data.split.test)
    judged = judge_baselines(questions, seen=seen, popularity_days=config.popularity_days)
    judged["model"] = judge_model(module, questions, seen=seen)
    judged["val"] = judge_model(module, data.questions(data.split.val), seen=seen)
    if isinstance(source, SyntheticWorld) and seen == "keep":
        ranks, user_ids = source.oracle_ranks(), data.snapshot.user_ids()
        judged["oracle"] = judge_oracle(lambda listener: ranks[user_ids[listener]], questions)
    return judged


def _metrics(
    judged: dict[str, Judgement],
    data: ListeningDataModule,
    module: NextItemModule,
    config: DictConfig,
    epochs: int,
) -> dict[str, Any]:
    """What ``metrics.json`` holds."""
    metrics: dict[str, Any] = {}
    for name, judgement in judged.items():
        prefix = {"model": "test/", "val": "val/"}.get(name, f"test/{name}/")
        metrics |= {prefix + key: value for key, value in judgement.values.items()}
    others = {name: judged[name] for name in judged.keys() - {"model", "val"}}
    compared = comparison(judged["model"], others)
    metrics |= {f"test/{key}": value for key, value in compared.items()}
    metrics |= {
        "train/seconds": module.seconds_training,
        "train/tokens_per_second": module.tokens_per_second,
        "train/best_epoch": epochs,
        "peak_rss_mb": outputs.peak_rss_mb(),
        "protocol": outputs.protocol(config, data),
    }
    return metrics


def _refit(
    config: DictConfig, data: ListeningDataModule, ranks: Ranks, folder: Path, epochs: int
) -> NextItemModule:
    """The chosen number of epochs on everything, validation and test included."""
    data.refit = True
    module = new_module(config, data)
    trainer = _trainer(
        config,
        default_root_dir=str(folder),
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        limit_val_batches=0,
    )
    _fit(ranks.take_in(trainer), module, data, None)
    return module


def _bundle(
    module: NextItemModule, data: ListeningDataModule, config: DictConfig, metrics: dict[str, Any]
) -> Bundle:
    plain = cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))
    architecture = {key: value for key, value in plain["model"].items() if key != "_target_"}
    return bundles.new_bundle(
        module.model,
        data.snapshot.catalogue(),
        architecture=architecture | {"catalogue_size": module.model.catalogue_size},
        config=plain,
        metrics=metrics,
        data_fingerprint=data.snapshot.facts.fingerprint,
    )


def _write(bundle: Bundle, folder: Path, config: DictConfig) -> None:
    outputs.write_json(bundle.metrics, folder / "metrics.json")
    bundles.save(bundle, folder / "model.pt")
    if config.output is not None:
        bundles.save(bundle, Path(config.output))


def _show_listener(
    bundle: Bundle, data: ListeningDataModule, config: DictConfig, console: Console
) -> None:
    """What one listener played last, and ten tracks to play next."""
    sequences, user_ids = data.snapshot.sequences, data.snapshot.user_ids()
    if config.listener is None:
        listener = int(sequences.lengths.argmax())
    else:
        listener = user_ids.index(str(config.listener))
    history = [bundle.catalogue.track_id(int(item)) for item in sequences.of(listener)]
    labels = [bundle.catalogue.label(int(item)) for item in sequences.of(listener)[-3:]]
    report.say(console, f"listener {user_ids[listener]} last played: {' | '.join(labels)}")
    answer = Recommender(bundle).recommend(history, k=10)
    console.print(report.recommendations_table(answer, "ten tracks to play next"))


def _is_shared(config: DictConfig) -> bool:
    return trains_together(config.trainer.devices, config.trainer.get("num_nodes", 1))


def main() -> None:
    door.run("train", train, flags.TRAIN, is_shared=_is_shared)
