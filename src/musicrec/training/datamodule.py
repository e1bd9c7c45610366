"""Interaction sequences for Lightning: streamed from Postgres once, mapped ever after."""

from __future__ import annotations

from collections.abc import Callable

from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

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


class ListeningDataModule(LightningDataModule):
    """Training windows and validation questions of one dataset.

    Args:
        stream: gives the snapshot of the dataset's present state, streaming it from Postgres if
            there is none yet (``musicrec.sources.stream.snapshot``).
        split: what to learn from and what to ask.
        max_length: interactions per window.
        batch_size: windows per step, over all ranks together.
        eval_batch_size: targets ranked at once; with the catalogue it bounds memory.
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
        eval_batch_size: int = 256,
        seed: int,
        which_windows: Which = "all",
        refit: bool = False,
    ) -> None:
        super().__init__()
        for name, size in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
            if size < 1:
                raise ConfigError(f"{name}={size} must be at least 1")
        self.stream = stream
        self.split_by = split
        self.max_length = max_length
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
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
        return DataLoader(dataset, sampler=sampler, batch_size=None)

    def val_dataloader(self) -> DataLoader[Questions] | list[DataLoader[Questions]]:
        if self.refit:
            return []
        trainer = self.trainer
        assert trainer is not None
        questions = self.questions(
            self.split.val, rank=trainer.global_rank, world_size=trainer.world_size
        )
        return DataLoader(questions, batch_size=None)

    def questions(self, targets: Targets, *, rank: int = 0, world_size: int = 1) -> QuestionDataset:
        """The targets as batches of at most ``eval_batch_size``."""
        return QuestionDataset(
            self.snapshot.sequences,
            targets,
            batch_size=self.eval_batch_size,
            rank=rank,
            world_size=world_size,
        )
