"""SASRec as Lightning trains it."""

from __future__ import annotations

import math
import time
from typing import Any, Literal

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from musicrec.errors import ConfigError
from musicrec.metrics.ranking import RankingMetrics
from musicrec.models.sasrec import SASRec
from musicrec.training.batches import TrainingBatch
from musicrec.training.evaluation import Questions, Seen, update

Schedule = Literal["cosine", "constant"]


class NextItemModule(LightningModule):
    """Learns to rank what comes next, and is judged by the protocol's full ranking.

    Args:
        model: scores the catalogue.
        loss: one of ``musicrec.models.losses``.
        seen: the protocol's ``seen``, for validation.
        seed: with the step it fixes dropout and negatives, so a resumed run draws the same.
        learning_rate: reached after warm-up.
        weight_decay: AdamW's, on matrices; embeddings, biases and norms have none.
        warmup_steps: steps of linear warm-up.
        schedule: ``cosine`` falls to zero at the last step of ``trainer.max_epochs``;
            ``constant`` stays.
    """

    def __init__(
        self,
        model: SASRec,
        loss: nn.Module,
        *,
        seen: Seen,
        seed: int,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        warmup_steps: int = 100,
        schedule: Schedule = "cosine",
    ) -> None:
        super().__init__()
        if schedule not in ("cosine", "constant"):
            raise ConfigError(f"optimizer.schedule={schedule!r} is not one of cosine, constant")
        if learning_rate <= 0:
            raise ConfigError(f"optimizer.learning_rate={learning_rate} must be above 0")
        self.model = model
        self.loss = loss
        self.seen: Seen = seen
        self.seed = seed
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.warmup_steps = warmup_steps
        self.schedule = schedule
        self.val_metrics = RankingMetrics(model.catalogue_size)
        self.epoch_loss = 0.0
        """Mean loss per token over the present epoch, as far as this process trained it."""
        self._epoch_tokens = 0
        self.tokens_seen = 0
        self.seconds_training = 0.0
        self._step_began = 0.0

    def training_step(self, batch: TrainingBatch, batch_idx: int) -> Tensor:
        # Dropout must not depend on how the run got here: a resumed run draws what the
        # uninterrupted one drew, and ranks draw apart.
        draw = batch.step * self.trainer.world_size + self.global_rank
        torch.manual_seed(self.seed * 1_000_003 + draw)
        has_target = batch.targets != 0
        hidden = self.model(batch.items)[has_target]
        total = self.loss(hidden, batch.targets[has_target], self.model.item_embedding.weight)
        loss: Tensor = total * self._loss_scale(has_target.sum())
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.items))
        self._count(total.detach(), len(hidden))
        return loss

    def _count(self, total: Tensor, tokens: int) -> None:
        if not tokens:  # this rank's share of a small last batch
            return
        self.tokens_seen += tokens
        self._epoch_tokens += tokens
        self.epoch_loss += (total.item() - self.epoch_loss * tokens) / self._epoch_tokens

    def _loss_scale(self, tokens: Tensor) -> Tensor:
        """1 / tokens of the whole step; over ranks times their number, which averages gradients."""
        world_size = self.trainer.world_size
        if world_size == 1:
            return 1.0 / tokens
        everywhere = self.trainer.strategy.reduce(tokens.double(), reduce_op="sum")
        return (world_size / everywhere).float()

    def on_train_epoch_start(self) -> None:
        self.epoch_loss, self._epoch_tokens = 0.0, 0

    def on_train_batch_start(self, batch: TrainingBatch, batch_idx: int) -> None:
        self._step_began = time.perf_counter()

    def on_train_batch_end(self, outputs: Any, batch: TrainingBatch, batch_idx: int) -> None:
        self.seconds_training += time.perf_counter() - self._step_began
        self.log("train/tokens_per_second", self.tokens_per_second, prog_bar=True)

    @property
    def tokens_per_second(self) -> float:
        """Targets learned from per second of training steps, validation left out."""
        return self.tokens_seen / max(self.seconds_training, 1e-9)

    def score(self, questions: Questions) -> Tensor:
        """``(batch, items)`` scores of what comes next."""
        items = questions.newest(self.model.max_length)
        hidden = self.model(items)[:, -1]
        # Never in bfloat16: it ties scores that differ, and ties count against the target.
        with torch.autocast(hidden.device.type, enabled=False):
            return self.model.scores(hidden.to(self.model.item_embedding.weight.dtype))

    def on_validation_epoch_start(self) -> None:
        if not self.model.item_embedding.weight.isfinite().all():
            raise ConfigError(
                f"the training diverged by step {self.global_step}: weights are no numbers any "
                f"more; lower optimizer.learning_rate={self.learning_rate}"
            )

    def validation_step(self, batch: Questions, batch_idx: int) -> None:
        update(self.val_metrics, self.score(batch), batch, self.seen)

    def on_validation_epoch_end(self) -> None:
        values = self.val_metrics.compute()
        self.val_metrics.reset()
        self.log_dict({f"val/{name}": value for name, value in values.items()})

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        weights = list(self.model.named_parameters())
        decayed = [p for name, p in weights if p.ndim == 2 and "embedding" not in name]
        others = [p for name, p in weights if p.ndim != 2 or "embedding" in name]
        optimizer = AdamW(
            [
                {"params": decayed, "weight_decay": self.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=self.learning_rate,
            betas=(0.9, 0.98),
            fused=True,
        )
        total_steps = int(self.trainer.estimated_stepping_batches)
        scheduler = LambdaLR(optimizer, lambda step: self._learning_rate_factor(step, total_steps))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def _learning_rate_factor(self, step: int, total_steps: int) -> float:
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if self.schedule == "constant":
            return 1.0
        falling = max(total_steps - self.warmup_steps, 1)
        done = min((step - self.warmup_steps) / falling, 1.0)
        return 0.5 * (1 + math.cos(math.pi * done))
