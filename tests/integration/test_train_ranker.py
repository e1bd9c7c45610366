"""The command that trains the second stage, on a small world of the past."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sqlalchemy import text

import ranker_world as world
from musicrec.cli.compose import compose
from musicrec.cli.train_ranker import train_ranker
from musicrec.database.engine import Dataset
from musicrec.errors import ConfigError, DataError
from musicrec.interactions.snapshot import Snapshot
from musicrec.interactions.split import leave_one_out
from musicrec.metrics.ranking import ndcg, target_rank
from musicrec.registry import bundle as bundles
from musicrec.registry.bundle import Bundle
from musicrec.sources import stream

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dataset(postgres) -> Iterator[Dataset]:
    with world.filled() as filled:
        yield filled


@pytest.fixture(scope="module")
def snapshot(dataset, musicrec_home) -> Snapshot:
    return stream.snapshot(dataset, musicrec_home / "snapshots")


def run(path: Path, *settings: str) -> None:
    quick = ("rounds=40", "learning_rate=0.1", "least_rows=5", "columns_share=0.5")
    train_ranker(compose("train_ranker", [f"bundle={path}", *quick, *settings]))


@pytest.fixture(scope="module")
def folder(snapshot, tmp_path_factory) -> Path:
    """Where ``model.pt`` lies, and after the command ``metrics.json``."""
    folder = tmp_path_factory.mktemp("ranker")
    bundles.save(world.bundle_of(snapshot), folder / "plain.pt")
    run(folder / "plain.pt", f"output={folder / 'model.pt'}")
    return folder


@pytest.fixture(scope="module")
def trained(folder) -> Bundle:
    return bundles.load(folder / "model.pt")


def test_what_the_model_does_not_know_is_learnt_and_the_ranker_wins(trained):
    assert trained.ranker is not None
    assert trained.ranker.is_active
    metrics = trained.ranker.metrics
    for period in ("val", "test"):
        assert metrics[f"{period}/pipeline/ndcg_10"] > 0.6
        assert metrics[f"{period}/sasrec/ndcg_10"] < 0.5
        assert metrics[f"{period}/pipeline/lead_ndcg_10_low"] > 0
    assert metrics["gain/listening"] > 0.1
    assert metrics["protocol"]["val_targets"] == metrics["protocol"]["test_targets"] == 131


def test_sasrec_alone_is_judged_as_the_training_of_the_model_judges_it(trained, snapshot):
    split, sequences = leave_one_out(snapshot.sequences), snapshot.sequences
    for period, targets in (("val", split.val), ("test", split.test)):
        ranks = []
        for listener, position in zip(targets.listeners.tolist(), targets.positions.tolist()):
            items = torch.from_numpy(sequences.of(listener)[:position].astype(np.int64))
            with torch.inference_mode():
                scores = trained.model(items[None, -trained.model.max_length :])
            ranks.append(target_rank(scores, torch.tensor([int(sequences.of(listener)[position])])))
        expected = ndcg(torch.cat(ranks).double(), 10).mean().item()
        assert trained.ranker.metrics[f"{period}/sasrec/ndcg_10"] == pytest.approx(expected)


def test_the_figures_stand_in_the_bundle_and_in_metrics_json(trained, folder):
    written = json.loads((folder / "metrics.json").read_text())
    assert written == trained.metrics
    assert written["test/ndcg_10"] == 0.5  # the model's own stay as they were
    name = "test/pipeline/ndcg_10"
    assert written[name] == trained.ranker.metrics[name]


def test_the_ranker_knows_of_no_play_that_it_is_asked_about(trained, snapshot):
    split = leave_one_out(snapshot.sequences)
    assert trained.ranker.plays.sum() == split.train.sum()
    assert trained.ranker.plays.sum() < trained.catalogue.play_counts.sum()


def test_the_bundle_is_the_same_but_for_its_ranker_and_has_another_version(trained, folder):
    plain = bundles.load(folder / "plain.pt")
    assert plain.ranker is None
    assert plain.version != trained.version
    for name, weight in plain.model.state_dict().items():
        assert torch.equal(weight, trained.model.state_dict()[name])
    assert list(trained.catalogue.track_ids) == list(plain.catalogue.track_ids)


def test_a_ranker_that_has_nothing_to_go_by_is_kept_and_not_used(snapshot, tmp_path, capsys):
    bundles.save(world.bundle_of(snapshot), tmp_path / "model.pt")
    run(tmp_path / "model.pt", "rounds=1", "leaves=2", "learning_rate=1e-6")
    ranker = bundles.load(tmp_path / "model.pt").ranker
    assert ranker is not None
    assert not ranker.is_active
    assert "is not used by default" in " ".join(capsys.readouterr().out.split())


def test_what_was_played_since_does_not_keep_a_ranker_from_being_trained(
    dataset, snapshot, folder, tmp_path
):
    late = world.END + (world.END - world.DAY)
    with dataset.engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO interactions (user_key, occurred_at, track_key, tie, source)"
                " SELECT user_key, :at, track_key, 0, 'service' FROM users, tracks"
                " WHERE user_id = :user AND track_id = 't1'"
            ),
            {"user": world.LIKING, "at": late},
        )
        connection.execute(text("INSERT INTO data_changes DEFAULT VALUES"))
    run(folder / "plain.pt", f"output={tmp_path / 'again.pt'}")
    again, before = (
        bundles.load(path).ranker.metrics for path in (tmp_path / "again.pt", folder / "model.pt")
    )
    assert again["test/pipeline/ndcg_10"] == pytest.approx(
        before["test/pipeline/ndcg_10"], abs=0.05
    )


def test_fewer_targets_are_drawn_where_that_is_wished(snapshot, tmp_path):
    bundles.save(world.bundle_of(snapshot), tmp_path / "model.pt")
    run(tmp_path / "model.pt", "targets=128")
    protocol = bundles.load(tmp_path / "model.pt").ranker.metrics["protocol"]
    assert (protocol["val_targets"], protocol["test_targets"]) == (128, 128)


def test_a_model_that_was_refit_is_refused(snapshot, tmp_path):
    bundles.save(world.bundle_of(snapshot, refit=True), tmp_path / "model.pt")
    with pytest.raises(ConfigError, match="refit=true"):
        run(tmp_path / "model.pt")


def test_a_model_of_other_listens_is_refused(snapshot, tmp_path):
    other = replace(world.bundle_of(snapshot), data_fingerprint="of another time")
    bundles.save(other, tmp_path / "model.pt")
    with pytest.raises(ConfigError, match="was trained on other listens"):
        run(tmp_path / "model.pt")


def test_an_untimed_dataset_is_refused_in_one_line(postgres, snapshot, dataset, tmp_path):
    bundles.save(world.bundle_of(snapshot), tmp_path / "model.pt")
    with dataset.engine.begin() as connection:
        connection.execute(text("UPDATE dataset_info SET timed = false"))
    try:
        with pytest.raises(DataError, match=r"untimed \(order only\)"):
            run(tmp_path / "model.pt")
    finally:
        with dataset.engine.begin() as connection:
            connection.execute(text("UPDATE dataset_info SET timed = true"))


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("targets=0", "targets=0"),
        ("candidates=3", "candidates=3 is not within"),
        ("rounds=0", "rounds=0 must be at least 1"),
        ("folds=null", "folds=null makes no sense"),
    ],
)
def test_a_setting_that_cannot_work_is_named_before_the_work(tmp_path, setting, said):
    with pytest.raises(ConfigError, match=said):
        run(tmp_path / "no such model.pt", setting)
