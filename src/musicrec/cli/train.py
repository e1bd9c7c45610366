"""``scripts/train_transformer.py``: listens in, a judged model out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Callback, Trainer
from rich.console import Console

from musicrec.cli import door, flags, outputs, report, settings
from musicrec.cli.listens import (
    dataset_for,
    dataset_name,
    import_with_bar,
    is_imported,
    source_of,
    streaming_bar,
    summary_line,
)
from musicrec.database.engine import Dataset
from musicrec.database.home import home
from musicrec.errors import MusicrecError
from musicrec.interactions.source import Source
from musicrec.registry import bundle as bundles
from musicrec.registry.bundle import Bundle
from musicrec.serving.recommender import Recommender
from musicrec.sources import stream
from musicrec.sources.synthetic import SyntheticWorld
from musicrec.training import callbacks
from musicrec.training.checkpoints import AtomicCheckpointIO, check_identity, resume_path
from musicrec.training.datamodule import ListeningDataModule
from musicrec.training.evaluation import Judgement, check_seen
from musicrec.training.judgement import (
    best_baseline,
    comparison,
    judge_baselines,
    judge_model,
    judge_oracle,
)
from musicrec.training.module import NextItemModule


def train(config: DictConfig) -> float:
    """Import if needed, train, judge, bundle, and say what came of it.

    Returns:
        The monitored metric on validation, for a sweep.
    """
    console = Console()
    folder = Path(HydraConfig.get().runtime.output_dir)
    settings.check(config, folder)
    resume_from = resume_path(config.ckpt_path, folder)
    source = source_of(config)
    name = dataset_name(config, source)
    with dataset_for(name, source) as dataset:
        if source is not None and not is_imported(dataset, source):
            summary = import_with_bar(dataset, source, console)
            report.say(console, summary_line(summary, dataset))
        data = _stream(config, dataset, console)
    settings.check_listener(config, data.snapshot)
    module = _new_module(config, data)
    identity = outputs.identity(config, data)
    if resume_from is not None:
        check_identity(resume_from, identity)
    trainer = _trainer(
        config,
        folder,
        _watchers(config, folder, identity),
        logger=instantiate(config.tracking, save_dir=str(folder)),
        plugins=[AtomicCheckpointIO()],
    )
    _fit(trainer, module, data, resume_from)
    epochs = _restore_best(trainer, module)
    judged = _judge(module, data, source, config)
    metrics = _metrics(judged, data, module, config, epochs)
    if config.refit:
        module = _refit(config, data, folder, epochs)
    bundle = _bundle(module, data, config, metrics)
    _write(bundle, folder, config)
    trainer.logger.log_hyperparams(outputs.flat(config), outputs.numbers(metrics))  # type: ignore[union-attr]
    console.print(report.results_table(metrics))
    report.say(console, report.verdict(metrics, best_baseline(judged)))
    _show_listener(bundle, data, config, console)
    _say_next(console, folder, name)
    return float(metrics[config.monitor])


def _stream(config: DictConfig, dataset: Dataset, console: Console) -> ListeningDataModule:
    with streaming_bar(console) as on_progress:
        data = ListeningDataModule(
            stream=lambda: stream.snapshot(dataset, home() / "snapshots", on_progress),
            split=instantiate(config.split, _partial_=True),
            max_length=config.model.max_length,
            batch_size=config.batch_size,
            eval_batch_size=config.eval_batch_size,
            seed=config.seed,
            which_windows=config.windows,
        )
        data.setup()
    return data


def _new_module(config: DictConfig, data: ListeningDataModule) -> NextItemModule:
    """The untrained model, its weights drawn from the seed."""
    torch.manual_seed(config.seed)
    return NextItemModule(
        instantiate(config.model, catalogue_size=data.snapshot.facts.catalogue_size),
        instantiate(config.loss),
        seen=check_seen(config.seen),
        seed=config.seed,
        **cast(dict[str, Any], OmegaConf.to_container(config.optimizer)),
    )


def _trainer(config: DictConfig, folder: Path, watchers: list[Callback], **more: Any) -> Trainer:
    """Lightning's trainer as the group ``trainer`` has it, with a bar where a person watches."""
    bar = callbacks.progress_bar()
    trainer: Trainer = instantiate(
        config.trainer,
        default_root_dir=str(folder),
        callbacks=[*watchers, *bar],
        enable_progress_bar=bool(bar),
        **more,
        _convert_="object",
    )
    return trainer


def _watchers(config: DictConfig, folder: Path, identity: dict[str, Any]) -> list[Callback]:
    checkpoints = folder / "checkpoints"
    return [
        callbacks.BestCheckpoint(checkpoints, config.monitor),
        callbacks.LastCheckpoint(checkpoints, config.checkpoint_every_steps),
        callbacks.PatientStopping(config.monitor, config.patience),
        callbacks.Identity(identity),
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
    checkpoint = torch.load(best, map_location="cpu", weights_only=True)
    module.load_state_dict(checkpoint["state_dict"])
    module.to(trainer.strategy.root_device)  # Lightning has moved it to the CPU
    return int(checkpoint["epoch"]) + 1


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
    config: DictConfig, data: ListeningDataModule, folder: Path, epochs: int
) -> NextItemModule:
    """The chosen number of epochs on everything, validation and test included."""
    module = _new_module(config, data)
    trainer = _trainer(
        config,
        folder,
        [],
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        limit_val_batches=0,
    )
    data.refit = True
    _fit(trainer, module, data, None)
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


def _say_next(console: Console, folder: Path, dataset: str) -> None:
    model = Path(os.path.relpath(folder / "model.pt"))
    report.say(console, f"written: {model} and metrics.json beside it")
    report.say(
        console,
        f"next: python scripts/recommend.py bundle={model} dataset={dataset} user=ID k=10   "
        "or: make tensorboard",
    )


def main() -> None:
    door.run("train", train, flags.TRAIN)
