"""musicrec as its users run it, on the yardstick's terms.

    python benchmarks/ours.py train DATA --shape A --steps 16
    python benchmarks/ours.py evaluate DATA --shape A --weights WEIGHTS.pt
    python benchmarks/ours.py profile DATA --shape A --steps 8

The settings are those of ``configs/train.yaml``, less the parts of the model that the other
contestants lack. Lightning, the data module, TensorBoard, the checkpoints and the progress bar (on
a terminal) are in the time; validation is not. ``profile`` says where a step's time goes.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from pytorch_lightning import Callback, Trainer
from torch import Tensor, nn

from contestant import Clock, Shape, Stopwatch, flags, report, shape_of
from listens import Listens, read
from musicrec.cli.compose import compose
from musicrec.cli.train import data_module, new_module
from musicrec.interactions.sequence import Sequences
from musicrec.interactions.snapshot import Facts, Snapshot
from musicrec.training import callbacks
from musicrec.training.checkpoints import AtomicCheckpointIO
from musicrec.training.datamodule import ListeningDataModule
from musicrec.training.judgement import judge_model
from step_profile import StepProfile


class Timed(Callback):
    """Tells the clock of every step, after everyone else has heard of it."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.clock.step(batch.step_tokens)


def config_of(shape: Shape, device: str, more: Sequence[str] = ()) -> DictConfig:
    """The product's own settings with the yardstick's architecture."""
    sizes = {
        "max_length": shape.length,
        **{n: getattr(shape, n) for n in ("dim", "heads", "blocks")},
    }
    plain = {"positions": "learned", "feed_forward": "relu", "similarity": "dot"}
    plain |= {"transitions": 0, "repeats": "false", "dropout": 0.2}
    settings = [f"model.{name}={value}" for name, value in {**sizes, **plain}.items()]
    trainer = "cpu" if device == "cpu" else "gpu"
    settings += ["seen=drop", "windows=newest", f"batch_size={shape.batch}", f"trainer={trainer}"]
    return compose("train", [*settings, *more])


def data_of(listens: Listens, config: DictConfig) -> ListeningDataModule:
    items, offsets = np.asarray(listens.items), np.asarray(listens.offsets)
    times = np.arange(len(items))
    sequences = Sequences(items, offsets, times, listens.catalogue_size, timed=False)
    facts = Facts("bench", False, len(items), len(offsets) - 1, listens.catalogue_size, "")
    return data_module(config, lambda: Snapshot(Path(), facts, sequences))


def train(listens: Listens, config: DictConfig, clock: Clock, *watchers: Callback) -> None:
    data = data_of(listens, config)
    module = new_module(config, data)
    with tempfile.TemporaryDirectory() as folder:
        last = callbacks.LastCheckpoint(Path(folder), config.checkpoint_every_steps)
        bar = callbacks.progress_bar()
        trainer = instantiate(
            config.trainer,
            max_epochs=None,
            max_steps=clock.total,
            limit_val_batches=0,
            callbacks=[last, *bar, *watchers, Timed(clock)],
            enable_progress_bar=bool(bar),
            logger=instantiate(config.tracking.tensorboard, save_dir=folder),
            plugins=[AtomicCheckpointIO()],
            default_root_dir=folder,
            _convert_="object",
        )
        trainer.fit(module, datamodule=data)


def load(model: nn.Module, bare: dict[str, Tensor]) -> None:
    """The weights of ``bare_loop.SASRec``: the same model, some names and padding aside."""
    rows = len(model.get_parameter("item_embedding.weight"))
    weights = {name.replace("feed_forward.1.", "feed_forward.3."): w for name, w in bare.items()}
    weights["item_embedding.weight"] = weights["item_embedding.weight"][:rows]
    model.load_state_dict(weights)


def evaluate(listens: Listens, config: DictConfig, options: argparse.Namespace) -> dict[str, Any]:
    """Users ranked per second, and each one's rank in the order of listeners."""
    data = data_of(listens, config)
    module = new_module(config, data).to(options.device)
    load(module.model, torch.load(options.weights, weights_only=True))
    watch = Stopwatch()
    questions = data.questions(data.split.test)
    judged = judge_model(module, questions, seen=config.seen)
    values = watch.rates(len(judged.ranks), "users")
    ranks = np.zeros(len(judged.ranks), dtype=np.int64)
    ranks[questions.order] = judged.ranks.numpy()
    return values | {"ndcg_10": judged.values["ndcg_10"], "ranks": ranks.tolist()}


def main() -> None:
    parser = flags(__doc__, "profile")
    parser.add_argument("--settings", nargs="+", default=[], help="others of configs/train.yaml")
    options = parser.parse_args()
    config = config_of(shape_of(options), options.device, options.settings)
    listens = read(options.data)
    if options.action == "evaluate":
        report(options, evaluate(listens, config, options))
        return
    clock = Clock(options.warmup, options.steps)
    if options.action == "train":
        train(listens, config, clock)
        report(options, clock.result)
        return
    profile = StepProfile(options.warmup, options.steps)
    train(listens, config, clock, profile)
    print(profile.table())


if __name__ == "__main__":
    main()
