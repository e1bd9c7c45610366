"""What watches a training run. Nothing here changes a weight."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, cast

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import (
    Checkpoint,
    EarlyStopping,
    ModelCheckpoint,
    RichProgressBar,
)

from musicrec.errors import ConfigError
from musicrec.training.module import NextItemModule


class EpochLines(Callback):
    """One line per epoch that stays on screen and in a log, whatever the progress bar does."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero or trainer.sanity_checking:
            return
        metrics, module = trainer.callback_metrics, cast(NextItemModule, pl_module)
        print(
            f"epoch {trainer.current_epoch + 1:>3}/{trainer.max_epochs}"
            f"  loss {module.epoch_loss:.4f}"
            f"  val/ndcg_10 {float(metrics['val/ndcg_10']):.4f}"
            f"  val/hit_rate_10 {float(metrics['val/hit_rate_10']):.4f}"
            f"  {module.tokens_per_second:,.0f} tokens/s"
            f"  {time.process_time() / 60:.1f} CPU min",
            flush=True,
        )


def best_checkpoint(folder: Path, monitor: str) -> ModelCheckpoint:
    """Keeps the epoch with the highest ``monitor``."""
    return ModelCheckpoint(
        dirpath=str(folder),
        filename="best",
        monitor=monitor,
        mode="max",
        save_top_k=1,
        enable_version_counter=False,
    )


class LastCheckpoint(Checkpoint):
    """Keeps the newest state in ``last.ckpt``, from which a killed run goes on.

    It is written every ``every_num_steps`` steps and at the end of every epoch. The last batch of
    an epoch is left to the end of the epoch: Lightning would resume from it without the epoch's
    validation, and choose another best epoch than the uninterrupted run.
    """

    def __init__(self, folder: Path, every_num_steps: int) -> None:
        if every_num_steps < 1:
            raise ConfigError(f"checkpoint_every_steps={every_num_steps} must be at least 1")
        self.path = folder / "last.ckpt"
        self.every_num_steps = every_num_steps

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step % self.every_num_steps == 0 and not trainer.is_last_batch:
            trainer.save_checkpoint(self.path)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.save_checkpoint(self.path)


def early_stopping(monitor: str, patience: int) -> EarlyStopping:
    """Stops after ``patience`` epochs without a better ``monitor``; a NaN in it is an error."""
    return EarlyStopping(monitor=monitor, mode="max", patience=patience, check_finite=True)


def progress_bar() -> list[Callback]:
    """Rich's bar with loss and rate where a person watches; in a log it would be noise."""
    return [RichProgressBar(leave=False)] if sys.stdout.isatty() else []
