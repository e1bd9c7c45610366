"""SASRec as Lightning trains it."""

from __future__ import annotations

import math
import time
from typing import Any, Literal, cast

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from musicrec.errors import ConfigError
from musicrec.metrics.ranking import RankingMetrics
from musicrec.models.losses import SampledSoftmax
from musicrec.models.sasrec import SASRec
from musicrec.training.batches import TrainingBatch
from musicrec.training.evaluation import Questions, Seen, update
from musicrec.training.optimizer import LazyRowsAdamW

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
        # A dense gradient of the items would cost as much as the catalogue at every step.
        model.item_embedding.sparse = isinstance(loss, SampledSoftmax)
        self.model = model
        self.loss = loss
        self.seen: Seen = seen
        self.seed = seed
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.warmup_steps = warmup_steps
        self.schedule = schedule
        self.val_metrics = RankingMetrics(model.catalogue_size)
        self.tokens_seen = 0
        self.seconds_training = 0.0
        self._clock_read = 0.0
        # Sums stay on the device: reading one would make every step wait for it.
        self._epoch_loss: Tensor | float = 0.0
        self._epoch_tokens = 0

    def training_step(self, batch: TrainingBatch, batch_idx: int) -> Tensor:
        # Dropout must not depend on how the run got here: a resumed run draws what the
        # uninterrupted one drew, and ranks draw apart.
        draw = batch.step * self.trainer.world_size + self.global_rank
        torch.manual_seed(self.seed * 1_000_003 + draw)
        hidden, biases = self.model.encode(batch.items, batch.lengths, batch.targets)
        total = self.loss(
            hidden,
            batch.targets,
            self.model.item_embedding.weight,
            biases,
            is_cosine=self.model.is_cosine,
        )
        learnt = self._sum_over_ranks(total.detach())
        self.log("train/loss", learnt / batch.step_tokens, prog_bar=True, batch_size=1)
        self._epoch_loss = self._epoch_loss + learnt
        self._epoch_tokens += batch.step_tokens
        self.tokens_seen += batch.step_tokens
        # Gradients are averaged over ranks: times their number, a token weighs the same wherever
        # it is.
        return total * (self.trainer.world_size / batch.step_tokens)

    def _sum_over_ranks(self, total: Tensor) -> Tensor:
        if self.trainer.world_size > 1:
            total = total.clone()
            torch.distributed.all_reduce(total)  # Lightning's own waits for everyone first
        return total

    @property
    def epoch_loss(self) -> float:
        """Mean loss per token over the present epoch, as far as this process trained it."""
        return float(self._epoch_loss) / max(self._epoch_tokens, 1)

    def on_train_epoch_start(self) -> None:
        self._epoch_loss, self._epoch_tokens = 0.0, 0
        self._clock_read = time.perf_counter()

    def on_train_batch_end(self, outputs: Any, batch: TrainingBatch, batch_idx: int) -> None:
        self._count_seconds()
        self.log("train/tokens_per_second", self.tokens_per_second, prog_bar=True)

    def on_validation_start(self) -> None:
        self._wait_for_device()
        if not self.trainer.sanity_checking:
            self._count_seconds()

    def on_validation_end(self) -> None:
        self._clock_read = time.perf_counter()

    def on_train_epoch_end(self) -> None:
        self._wait_for_device()
        self._count_seconds()

    def _count_seconds(self) -> None:
        now = time.perf_counter()
        self.seconds_training += now - self._clock_read
        self._clock_read = now

    def _wait_for_device(self) -> None:
        """What a GPU has been told to do is done when it says so, not when the call returns."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @property
    def tokens_per_second(self) -> float:
        """Targets learned from per second of training, batches included, validation left out."""
        return self.tokens_seen / max(self.seconds_training, 1e-9)

    def score(self, questions: Questions) -> Tensor:
        """``(batch, items)`` scores of what comes next."""
        return self.model.scores(self.model.encode_last(*questions.newest(self.model.max_length)))

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
        groups = [
            {"params": decayed, "weight_decay": self.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        settings: dict[str, Any] = {"lr": self.learning_rate, "betas": (0.9, 0.98)}
        table = self.model.item_embedding
        optimizer = (
            LazyRowsAdamW(groups, cast(nn.Parameter, table.weight), **settings)
            if table.sparse
            else AdamW(groups, fused=True, **settings)
        )
        total_steps = int(self.trainer.estimated_stepping_batches)
        scheduler = LambdaLR(optimizer, lambda step: self._learning_rate_factor(step, total_steps))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        if isinstance(optimizer, LazyRowsAdamW):
            if gradient_clip_val:
                optimizer.clip(gradient_clip_val, gradient_clip_algorithm or "norm")
        else:
            super().configure_gradient_clipping(
                optimizer, gradient_clip_val, gradient_clip_algorithm
            )

    def _learning_rate_factor(self, step: int, total_steps: int) -> float:
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if self.schedule == "constant":
            return 1.0
        falling = max(total_steps - self.warmup_steps, 1)
        done = min((step - self.warmup_steps) / falling, 1.0)
        return 0.5 * (1 + math.cos(math.pi * done))
