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


class BestCheckpoint(ModelCheckpoint):
    """Keeps the epoch with the highest ``monitor`` in ``best.ckpt``."""

    def __init__(self, folder: Path, monitor: str) -> None:
        super().__init__(
            dirpath=str(folder),
            filename="best",
            monitor=monitor,
            mode="max",
            save_top_k=1,
            enable_version_counter=False,
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As Lightning's, but a run folder that was moved keeps what it knows of its best epoch."""
        old = state_dict["dirpath"]

        def moved(value: Any) -> Any:
            if isinstance(value, dict):  # best_k_models: path to score
                return {moved(path): score for path, score in value.items()}
            return value.replace(old, str(self.dirpath), 1) if isinstance(value, str) else value

        super().load_state_dict({key: moved(value) for key, value in state_dict.items()})


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
        # In the middle of an accumulation there are gradients that no checkpoint holds.
        is_whole_step = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        is_due = is_whole_step and trainer.global_step % self.every_num_steps == 0
        if is_due and not trainer.is_last_batch:
            trainer.save_checkpoint(self.path)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.save_checkpoint(self.path)


class PatientStopping(EarlyStopping):
    """Stops after ``patience`` epochs without a better ``monitor``."""

    def __init__(self, monitor: str, patience: int) -> None:
        super().__init__(monitor=monitor, mode="max", patience=patience)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As Lightning's, but patience is this run's: a resumed one may be given more."""
        super().load_state_dict(state_dict | {"patience": self.patience})

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # A run that had stopped and was killed later must not train on when it is resumed.
        if self.wait_count >= self.patience:
            trainer.should_stop = True


class Identity(Callback):
    """Writes into every checkpoint what it is a checkpoint of; ``check_identity`` compares."""

    def __init__(self, identity: dict[str, Any]) -> None:
        self.identity = identity

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["identity"] = self.identity


def progress_bar() -> list[Callback]:
    """Rich's bar with loss and rate where a person watches; in a log it would be noise."""
    return [RichProgressBar(leave=False)] if sys.stdout.isatty() else []
