"""Interaction sequences for Lightning: streamed from Postgres once, mapped ever after."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset, Sampler

from musicrec.errors import ConfigError
from musicrec.interactions.sequence import IntArray, Sequences
from musicrec.interactions.snapshot import Snapshot
from musicrec.interactions.split import Split, Targets
from musicrec.training.batches import (
    BatchDataset,
    Place,
    ResumableSampler,
    TrainingBatch,
    Which,
    windows,
)
from musicrec.training.evaluation import QuestionDataset, Questions

T = TypeVar("T")


class _LateLoader(DataLoader[T]):
    """A loader that starts its workers when the first batch is asked for.

    A ``DataLoader`` starts them on ``iter()``, which Lightning calls before it has restored a
    checkpoint; they would gather what follows the wrong place.
    """

    def __iter__(self) -> Iterator[T]:  # type: ignore[override]
        yield from super().__iter__()


class ListeningDataModule(LightningDataModule):
    """Training windows and validation questions of one dataset.

    Args:
        stream: gives the snapshot of the dataset's present state, streaming it from Postgres if
            there is none yet (``musicrec.sources.stream.snapshot``).
        split: what to learn from and what to ask.
        max_length: interactions per window.
        batch_size: windows per step, over all ranks together.
        eval_memory_mb: what ranking a batch of questions may take at its height, in 10⁶ bytes.
        dim: the model's width, on which that depends.
        num_workers: processes that gather batches ahead; 0 gathers them in this one, which is
            fast enough for one device.
        seed: order of the windows.
        which_windows: ``all`` learns from every transition, ``newest`` from each listener's last
            ``max_length``.
        refit: train on everything and ask nothing.
    """

    def __init__(
        self,
        stream: Callable[[], Snapshot],
        split: Callable[[Sequences], Split],
        *,
        max_length: int,
        batch_size: int,
        eval_memory_mb: float = 64,
        dim: int,
        num_workers: int = 0,
        seed: int,
        which_windows: Which = "all",
        refit: bool = False,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size} must be at least 1")
        if eval_memory_mb <= 0:
            raise ConfigError(f"eval_memory_mb={eval_memory_mb} must be above 0")
        self.stream = stream
        self.split_by = split
        self.max_length = max_length
        self.batch_size = batch_size
        self.eval_memory_mb = eval_memory_mb
        self.dim = dim
        self.num_workers = num_workers
        self.seed = seed
        self.which_windows: Which = which_windows
        self.refit = refit
        self.snapshot: Snapshot
        self.split: Split

    def prepare_data(self) -> None:
        """Build the snapshot if there is none of this state of the data; one process does it."""
        if not hasattr(self, "snapshot"):
            self.stream()

    def setup(self, stage: str | None = None) -> None:
        if not hasattr(self, "snapshot"):
            self.snapshot = self.stream()
            self.split = self.split_by(self.snapshot.sequences)

    @property
    def training_prefix(self) -> IntArray:
        """``(listeners,)`` how many interactions of each listener are trained on."""
        return self.snapshot.sequences.lengths if self.refit else self.split.train

    def train_dataloader(self) -> DataLoader[TrainingBatch]:
        trainer = self.trainer
        assert trainer is not None
        sequences = self.snapshot.sequences
        dataset = BatchDataset(
            sequences,
            windows(sequences, self.training_prefix, self.max_length, self.which_windows),
            batch_size=self.batch_size,
            seed=self.seed,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
        )
        if not dataset.steps_per_epoch:
            raise ConfigError("no listener has two interactions to train on; import more listens")
        progress = trainer.fit_loop.epoch_loop.batch_progress
        sampler = ResumableSampler(
            dataset.steps_per_epoch, lambda: Place(trainer.current_epoch, progress.current.ready)
        )
        return self._loader(dataset, sampler)

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """As Lightning's, but the lengths of a training batch stay on the CPU, which reads them."""
        if not isinstance(batch, TrainingBatch):
            return super().transfer_batch_to_device(batch, device, dataloader_idx)
        items = batch.items.to(device, non_blocking=True)
        targets = batch.targets.to(device, non_blocking=True)
        return batch._replace(items=items, targets=targets)

    def val_dataloader(self) -> DataLoader[Questions] | list[DataLoader[Questions]]:
        if self.refit:
            return []
        trainer = self.trainer
        assert trainer is not None
        questions = self.questions(
            self.split.val, rank=trainer.global_rank, world_size=trainer.world_size
        )
        if len(self.split.val) < trainer.world_size:
            raise ConfigError(
                f"{len(self.split.val)} validation targets are too few for {trainer.world_size} "
                "processes; import more listens, or train with fewer trainer.devices"
            )
        return self._loader(questions)

    def _loader(self, dataset: Dataset[T], sampler: Sampler[Place] | None = None) -> DataLoader[T]:
        # Without a generator of its own a loader takes from the global one, which is the model's.
        own = torch.Generator().manual_seed(self.seed)
        return _LateLoader(
            dataset, sampler=sampler, batch_size=None, num_workers=self.num_workers, generator=own
        )

    def questions(self, targets: Targets, *, rank: int = 0, world_size: int = 1) -> QuestionDataset:
        """The targets in batches that ``eval_memory_mb`` holds."""
        return QuestionDataset(
            self.snapshot.sequences,
            targets,
            memory_mb=self.eval_memory_mb,
            max_length=self.max_length,
            dim=self.dim,
            rank=rank,
            world_size=world_size,
        )
