"""Rounds of a retraining on real listens in Postgres, with a model that is counted in no time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from bundles import bundle_of, saved
from musicrec.cli import candidacy, retraining
from musicrec.cli.job import Log
from musicrec.cli.retraining import Order, TrainingFailed
from musicrec.database.home import home
from musicrec.registry import changes
from musicrec.registry.policy import Policy
from musicrec.registry.versions import Model
from musicrec.sources import stream
from plays import Play, store
from snapshots import cycles

pytestmark = pytest.mark.slow

START = datetime(2024, 3, 1, tzinfo=UTC)


class Desk:
    """One model's rounds, and the trainings that they asked for."""

    def __init__(self, dataset, folder) -> None:
        self.dataset = dataset
        self.folder = folder
        self.model = Model(dataset.name)
        self.asked: list[tuple[str, bool]] = []
        self.is_good = True
        self.status = 0

    def hear(self, num_plays: int) -> None:
        """Everybody has played so much by now."""
        plays = [
            Play(f"u{row}", f"t{item}", START + timedelta(minutes=place))
            for row, history in enumerate(cycles(30, num_plays, 24))
            for place, item in enumerate(history)
        ]
        store(self.dataset, plays, {f"t{item}": {} for item in range(1, 25)})

    def train(self, run, is_resumed) -> int:
        self.asked.append((run.name, is_resumed))
        if self.status == 0:
            snapshot = stream.snapshot(self.dataset, home() / "snapshots")
            seed = self.trainings
            saved(bundle_of(snapshot, is_good=self.is_good, seed=seed), run / "model.pt")
        return self.status

    def round(self, *settings: str, force: bool = False, **policy: float) -> bool:
        policy = {"max_latency_ms": 10_000, **policy}
        order = Order(
            self.dataset.name, self.model.name, settings, Policy(**policy), force, keep_runs=2
        )
        console = Console(width=200)
        log = Log(self.folder / "log.jsonl", console)
        return retraining.retrain(order, self.train, self.folder, log, console)

    @property
    def champion(self) -> int | None:
        return self.model.linked("champion")

    @property
    def trainings(self) -> int:
        return len(self.asked)


@pytest.fixture
def desk(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("MUSICREC_MODELS", str(tmp_path / "models"))
    desk = Desk(dataset, tmp_path / "rounds")
    desk.hear(8)
    return desk


def unfinished(desk, monkeypatch):
    """A training was killed that had a checkpoint."""

    def killed(run, is_resumed):
        (run / "checkpoints").mkdir()
        (run / "checkpoints" / "last.ckpt").touch()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(desk, "train", killed)
        with pytest.raises(KeyboardInterrupt):
            desk.round()


def test_the_first_one_becomes_champion(desk):
    assert desk.round()
    assert desk.champion == 1


def test_the_card_of_a_challenger_tells_of_parts_of_its_targets(desk):
    desk.round()
    assert "| heard before | explore |" in desk.model.version(1).card.read_text()


def test_without_new_listens_nothing_is_trained(desk, capsys):
    desk.round()
    assert desk.round("model=small")
    assert desk.trainings == 1
    assert "nothing new: models:/" in capsys.readouterr().out


def test_force_trains_without_new_listens(desk):
    desk.round()
    desk.round(force=True)
    assert desk.trainings == 2


def test_a_better_one_on_new_listens_is_promoted(desk):
    desk.is_good = False
    desk.round()
    desk.hear(9)
    desk.is_good = True
    assert desk.round()
    assert desk.champion == 2


def test_a_worse_one_is_refused_with_the_figures_and_changes_nothing(desk, capsys):
    desk.round()
    desk.hear(9)
    desk.is_good = False
    assert not desk.round()
    assert desk.champion == 1
    refusal = desk.model.history()[-1]
    assert refusal["what"] == "refused"
    assert refusal["why"].startswith("not_worse: NDCG@10 0.")
    said = capsys.readouterr().out
    assert "is refused, and models:/" in said
    assert "[95 % -" in said


def test_a_slow_one_is_refused(desk):
    assert not desk.round(max_latency_ms=1e-6)
    assert desk.champion is None
    assert "latency: a single answer takes" in desk.model.history()[-1]["why"]


def test_a_refused_one_is_judged_again_and_not_trained_again(desk):
    assert not desk.round(max_latency_ms=1e-6)
    assert desk.round()
    assert (desk.champion, desk.trainings) == (1, 1)


def test_other_settings_are_another_training(desk):
    assert not desk.round(max_latency_ms=1e-6)
    assert desk.round("model=small")
    assert (desk.champion, desk.trainings) == (2, 2)


def test_one_that_was_rolled_back_does_not_come_back_by_itself(desk):
    desk.round()
    desk.hear(9)
    desk.round()
    changes.rollback(desk.model, "a person's choice")
    assert desk.round()
    assert (desk.champion, desk.trainings) == (1, 2)


def test_a_training_that_fails_leaves_the_champion(desk):
    desk.round()
    desk.hear(9)
    desk.status = 1
    with pytest.raises(TrainingFailed, match="ended with status 1"):
        desk.round()
    assert desk.champion == 1
    assert len(desk.model.versions()) == 1


def test_a_training_that_was_killed_is_gone_on_with(desk, monkeypatch):
    unfinished(desk, monkeypatch)
    assert desk.round()
    ((_, is_resumed),) = desk.asked
    assert is_resumed


def test_a_training_of_older_listens_is_not_gone_on_with(desk, monkeypatch):
    unfinished(desk, monkeypatch)
    desk.hear(9)
    desk.round()
    assert [is_resumed for _, is_resumed in desk.asked] == [False]


def test_what_cannot_be_gone_on_with_is_begun_anew(desk, monkeypatch):
    unfinished(desk, monkeypatch)
    plain = desk.train
    monkeypatch.setattr(
        desk, "train", lambda run, is_resumed: 2 if is_resumed else plain(run, is_resumed)
    )
    assert desk.round()
    assert desk.champion == 1


def test_a_training_that_ended_before_a_kill_is_registered(desk, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(changes, "register", lambda *a, **k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            desk.round()
    assert desk.round()
    assert (desk.champion, desk.trainings) == (1, 1)


def test_a_challenger_that_was_registered_before_a_kill_is_judged(desk, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(candidacy, "judged", lambda *a, **k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            desk.round()
    assert desk.champion is None
    assert desk.round()
    assert (desk.champion, desk.trainings) == (1, 1)


def test_listens_that_arrive_in_mid_training_do_not_spoil_it(desk, monkeypatch):
    desk.round()
    desk.hear(9)
    plain = desk.train

    def slow(run, is_resumed):
        status = plain(run, is_resumed)
        desk.hear(10)
        return status

    monkeypatch.setattr(desk, "train", slow)
    assert desk.round()
    assert desk.champion == 2


def test_a_champion_that_is_gone_from_the_disk_is_a_reason_to_refuse(desk, tmp_path):
    desk.round()
    desk.model.version(1).folder.rename(tmp_path / "gone")
    desk.hear(9)
    assert not desk.round()
    assert "the champion cannot be asked" in desk.model.history()[-1]["why"]


def test_only_the_newest_trainings_are_kept(desk):
    for num_plays in (8, 9, 10):
        desk.hear(num_plays)
        desk.round()
    assert len([path for path in desk.folder.iterdir() if path.is_dir()]) == 2
