"""What watches a training run. Nothing here changes a weight."""

from __future__ import annotations

import sys
from typing import cast

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint, RichProgressBar

from musicrec.training.module import NextItemModule


class EpochLines(Callback):
    """One line per epoch that stays on screen and in a log, whatever the progress bar does."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero or trainer.sanity_checking:
            return
        metrics, module = trainer.callback_metrics, cast(NextItemModule, pl_module)
        print(
            f"epoch {trainer.current_epoch + 1:>3}/{trainer.max_epochs}"
            f"  loss {float(metrics.get('train/loss', float('nan'))):.4f}"
            f"  val/ndcg_10 {float(metrics['val/ndcg_10']):.4f}"
            f"  val/hit_rate_20 {float(metrics['val/hit_rate_20']):.4f}"
            f"  {module.tokens_per_second:,.0f} tokens/s",
            flush=True,
        )


def best_checkpoint(folder: str, monitor: str) -> ModelCheckpoint:
    """Keeps the epoch with the highest ``monitor``."""
    return ModelCheckpoint(
        dirpath=folder,
        filename="best",
        monitor=monitor,
        mode="max",
        save_top_k=1,
        enable_version_counter=False,
    )


def last_checkpoint(folder: str, every_num_steps: int) -> ModelCheckpoint:
    """Keeps the newest state, from which a killed run goes on."""
    return ModelCheckpoint(
        dirpath=folder,
        filename="last",
        every_n_train_steps=every_num_steps,
        save_top_k=1,
        enable_version_counter=False,
    )


def early_stopping(monitor: str, patience: int) -> EarlyStopping:
    """Stops after ``patience`` epochs without a better ``monitor``; a NaN in it is an error."""
    return EarlyStopping(monitor=monitor, mode="max", patience=patience, check_finite=True)


def progress_bar() -> list[Callback]:
    """Rich's bar with loss and rate where a person watches; in a log it would be noise."""
    return [RichProgressBar(leave=False)] if sys.stdout.isatty() else []
