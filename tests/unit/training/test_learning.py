"""What training promises: it learns, and a stopped run goes on as if nothing had happened."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import LambdaCallback

from damage import cut_off, flip_a_byte
from musicrec.errors import ConfigError
from musicrec.interactions.split import leave_one_out
from musicrec.models.full_cross_entropy import FullCrossEntropy
from musicrec.models.losses import BCE, GBCE, SampledSoftmax
from musicrec.models.sasrec import SASRec
from musicrec.training import callbacks
from musicrec.training.checkpoints import AtomicCheckpointIO, put_back, resume_path
from musicrec.training.datamodule import ListeningDataModule
from musicrec.training.judgement import judge_model
from musicrec.training.module import NextItemModule
from snapshots import cycles, snapshot_of

CATALOGUE = 40


class Killed(Exception):
    """Stands for kill -9: nothing gets a chance to save."""


class KillAfter(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if trainer.global_step == self.step:
            raise Killed


class Record(Callback):
    """Loss by step, and the monitored metric by epoch."""

    def __init__(self) -> None:
        self.losses: dict[int, float] = {}
        self.judged: dict[int, float] = {}

    def on_validation_end(self, trainer, pl_module) -> None:
        self.judged[trainer.current_epoch] = trainer.callback_metrics["val/ndcg_10"].item()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.losses[trainer.global_step] = outputs["loss"].item()


def data(folder: Path, num_listeners: int = 60, *, num_workers: int = 0) -> ListeningDataModule:
    histories = cycles(num_listeners, 12, CATALOGUE)
    datamodule = ListeningDataModule(
        lambda: snapshot_of(histories, folder / "snapshot"),
        leave_one_out,
        max_length=8,
        batch_size=16,
        dim=16,
        num_workers=num_workers,
        seed=3,
    )
    datamodule.setup()
    return datamodule


def sampled_softmax() -> SampledSoftmax:
    return SampledSoftmax(20).propose(torch.ones(CATALOGUE + 1))


def module(loss=None, **settings) -> NextItemModule:
    torch.manual_seed(5)
    model = SASRec(CATALOGUE, max_length=8, dim=16, blocks=1, heads=2, dropout=0.2)
    settings = {"learning_rate": 0.01, "warmup_steps": 5} | settings
    return NextItemModule(model, loss or FullCrossEntropy(), seen="keep", seed=3, **settings)


def fit(
    module: NextItemModule,
    datamodule: ListeningDataModule,
    folder: Path,
    *,
    epochs: int = 3,
    every_num_steps: int = 1,
    resume: bool = False,
    patience: int = 100,
    watchers: tuple[Callback, ...] = (),
    **settings,
) -> Trainer:
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        callbacks=[
            callbacks.BestCheckpoint(folder / "checkpoints", "val/ndcg_10"),
            callbacks.LastCheckpoint(folder / "checkpoints", every_num_steps),
            callbacks.PatientStopping("val/ndcg_10", patience),
            *watchers,
        ],
        plugins=[AtomicCheckpointIO()],
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )
    path = resume_path("last", folder) if resume else None
    path = path and put_back(path)
    trainer.fit(module, datamodule=datamodule, ckpt_path=path, weights_only=True)
    return trainer


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "epochs"),
    # Binary losses first learn that almost nothing comes next, and need more steps.
    [(FullCrossEntropy(), 25), (sampled_softmax(), 40), (GBCE(20, t=0.5), 80), (BCE(), 80)],
    ids=lambda value: type(value).__name__,
)
def test_a_certain_next_track_is_learned(tmp_path, loss, epochs):
    datamodule, learner = data(tmp_path, num_listeners=100), module(loss)
    fit(learner, datamodule, tmp_path, epochs=epochs, every_num_steps=10_000)
    judged = judge_model(learner, datamodule.questions(datamodule.split.test), seen="keep")
    assert judged.values["ndcg_10"] > 0.95


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    learner, record = module(), Record()
    trainer = fit(learner, data(folder), folder, watchers=(record,))
    return learner.state_dict(), record, trainer.checkpoint_callback.best_model_score


# 60 listeners in batches of 16 are 8 steps an epoch: 8 and 16 are epoch ends, 24 the last step.
@pytest.mark.parametrize(
    ("killed_at", "every", "goes_on_from"),
    [(1, 1, 1), (7, 3, 6), (8, 1, 8), (9, 1, 9), (9, 5, 8), (16, 8, 16), (21, 5, 20), (12, 99, 8)],
)
def test_a_resumed_run_equals_an_uninterrupted_one(
    tmp_path, uninterrupted, killed_at, every, goes_on_from
):
    with pytest.raises(Killed):
        watchers = (KillAfter(killed_at),)
        fit(module(), data(tmp_path), tmp_path, every_num_steps=every, watchers=watchers)
    learner, record = module(), Record()
    trainer = fit(
        learner, data(tmp_path), tmp_path, every_num_steps=every, resume=True, watchers=(record,)
    )
    weights, whole, best = uninterrupted
    assert list(record.losses) == list(range(goes_on_from + 1, 25))
    assert record.losses.items() <= whole.losses.items()
    assert record.judged.items() <= whole.judged.items()
    assert trainer.checkpoint_callback.best_model_score == best
    for name, weight in learner.state_dict().items():
        assert torch.equal(weight, weights[name]), name


@pytest.mark.slow
@pytest.mark.parametrize(("killed_at", "goes_on_from"), [(7, 6), (11, 10), (16, 16)])
def test_workers_that_gather_ahead_change_nothing(tmp_path, uninterrupted, killed_at, goes_on_from):
    with pytest.raises(Killed):
        watchers = (KillAfter(killed_at),)
        fit(module(), data(tmp_path, num_workers=2), tmp_path, every_num_steps=2, watchers=watchers)
    learner, record = module(), Record()
    fit(learner, data(tmp_path, num_workers=2), tmp_path, resume=True, watchers=(record,))
    weights, whole, _ = uninterrupted
    assert list(record.losses) == list(range(goes_on_from + 1, 25))
    assert record.judged.items() <= whole.judged.items()
    for name, weight in learner.state_dict().items():
        assert torch.equal(weight, weights[name]), name


def test_a_loader_leaves_the_random_state_to_the_model(tmp_path):
    datamodule = data(tmp_path)
    fit(module(), datamodule, tmp_path, epochs=1)
    before = torch.get_rng_state()
    for loader in (datamodule.train_dataloader(), datamodule.val_dataloader()):
        next(iter(loader), None)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
@pytest.mark.parametrize("damage", [cut_off, flip_a_byte])
@pytest.mark.parametrize(("killed_at", "goes_on_from"), [(3, 2), (8, 7), (9, 8), (15, 14)])
def test_a_damaged_last_checkpoint_costs_a_step_and_changes_nothing(
    tmp_path, uninterrupted, damage, killed_at, goes_on_from
):
    with pytest.raises(Killed):
        fit(module(), data(tmp_path), tmp_path, watchers=(KillAfter(killed_at),))
    damage(tmp_path / "checkpoints" / "last.ckpt")
    learner, record = module(), Record()
    trainer = fit(learner, data(tmp_path), tmp_path, resume=True, watchers=(record,))
    weights, whole, best = uninterrupted
    assert list(record.losses) == list(range(goes_on_from + 1, 25))
    assert record.losses.items() <= whole.losses.items()
    assert trainer.checkpoint_callback.best_model_score == best
    for name, weight in learner.state_dict().items():
        assert torch.equal(weight, weights[name]), name


@pytest.mark.slow
@pytest.mark.parametrize("killed_at", [3, 7])
def test_a_run_killed_in_its_first_epoch_validates_that_epoch(tmp_path, killed_at):
    with pytest.raises(Killed):
        fit(module(), data(tmp_path), tmp_path, watchers=(KillAfter(killed_at),))
    record = Record()
    fit(module(), data(tmp_path), tmp_path, resume=True, watchers=(record,))
    assert list(record.judged) == [0, 1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("loss", [FullCrossEntropy, sampled_softmax])
@pytest.mark.parametrize(
    "settings",
    [{"accumulate_grad_batches": 2}, {"limit_train_batches": 5}, {"gradient_clip_val": 0.1}],
)
def test_other_lengths_of_step_and_epoch_resume_too(tmp_path, settings, loss):
    whole, record = module(loss()), Record()
    fit(whole, data(tmp_path / "a"), tmp_path / "a", watchers=(record,), **settings)
    assert list(record.judged) == [0, 1, 2]
    with pytest.raises(Killed):
        watchers = (KillAfter(7),)
        fit(module(loss()), data(tmp_path / "b"), tmp_path / "b", watchers=watchers, **settings)
    resumed = module(loss())
    fit(resumed, data(tmp_path / "b"), tmp_path / "b", resume=True, **settings)
    for name, weight in resumed.state_dict().items():
        assert torch.equal(weight, whole.state_dict()[name]), name


def test_accumulated_epochs_train_on_every_batch(tmp_path):
    steps: list[int] = []
    note = LambdaCallback(on_train_batch_start=lambda t, m, batch, i: steps.append(batch.step))
    fit(module(), data(tmp_path), tmp_path, watchers=(note,), accumulate_grad_batches=2)
    assert steps == list(range(24))


def test_a_run_that_had_stopped_early_does_not_train_on_when_resumed(tmp_path):
    # Without a learning rate worth the name no epoch is better than the first.
    still = {"learning_rate": 1e-12}
    fit(module(**still), data(tmp_path), tmp_path, epochs=9, patience=1)
    record = Record()
    trainer = fit(
        module(**still),
        data(tmp_path),
        tmp_path,
        epochs=9,
        patience=1,
        resume=True,
        watchers=(record,),
    )
    assert record.losses == {}
    assert trainer.checkpoint_callback.best_model_path == str(tmp_path / "checkpoints/best.ckpt")


def test_a_run_that_had_stopped_early_trains_on_with_more_patience(tmp_path):
    still = {"learning_rate": 1e-12}
    fit(module(**still), data(tmp_path), tmp_path, epochs=9, patience=1)
    more = fit(module(**still), data(tmp_path), tmp_path, epochs=9, patience=3, resume=True)
    assert more.current_epoch == 4


def test_a_moved_run_keeps_its_best_epoch(tmp_path):
    first = fit(module(), data(tmp_path), tmp_path / "old", epochs=2)
    (tmp_path / "old").rename(tmp_path / "new")
    moved = fit(module(), data(tmp_path), tmp_path / "new", epochs=2, resume=True)
    best = moved.checkpoint_callback
    assert best.best_model_score == first.checkpoint_callback.best_model_score
    assert best.best_model_path == str(tmp_path / "new" / "checkpoints" / "best.ckpt")


def test_a_moved_run_finds_a_better_epoch(tmp_path):
    first = fit(module(), data(tmp_path), tmp_path / "old", epochs=1)
    (tmp_path / "old").rename(tmp_path / "new")
    moved = fit(module(), data(tmp_path), tmp_path / "new", epochs=5, resume=True)
    best = moved.checkpoint_callback
    assert best.best_model_score > first.checkpoint_callback.best_model_score
    assert best.best_k_models.keys() == {str(tmp_path / "new" / "checkpoints" / "best.ckpt")}


def test_a_checkpoint_opens_without_unpickling_anything(tmp_path):
    fit(module(), data(tmp_path), tmp_path, epochs=1)
    for path in (tmp_path / "checkpoints").iterdir():
        torch.load(path, weights_only=True)


def test_the_learning_rate_warms_up_and_falls_to_zero():
    learner = module(learning_rate=1.0, warmup_steps=10)
    factors = [learner._learning_rate_factor(step, total_steps=110) for step in range(111)]
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == factors[9] == 1
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[110] == pytest.approx(0)


def test_a_diverged_training_ends_in_one_clear_line(tmp_path):
    learner = module(learning_rate=float("inf"))
    with pytest.raises(ConfigError, match=r"diverged.*optimizer\.learning_rate"):
        fit(learner, data(tmp_path), tmp_path)
