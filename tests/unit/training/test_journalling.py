"""Lightning's numbers in the journal."""

from __future__ import annotations

from musicrec.registry.journal import Journal, told
from musicrec.training.journalling import JournalLogger


def logger(folder, *, is_resumed: bool) -> JournalLogger:
    journal = Journal(folder)
    journal.begin(experiment="e", name="n", tags={}, params={}, is_resumed=is_resumed)
    return JournalLogger(journal)


def test_steps_that_a_resumed_run_trains_again_are_not_told_again(tmp_path):
    before = logger(tmp_path, is_resumed=False)
    for step in (10, 20, 30):
        before.log_metrics({"train/loss": float(step)}, step)
    after = logger(tmp_path, is_resumed=True)
    after.log_metrics({"train/loss": 20.5, "val/ndcg_10": 0.1}, 20)
    after.log_metrics({"train/loss": 30.5}, 30)
    after.log_metrics({"train/loss": 40.0}, 40)
    curves = told(after.journal.path).curves
    assert curves["train/loss"] == [(10, 10.0), (20, 20.0), (30, 30.0), (40, 40.0)]
    assert curves["val/ndcg_10"] == [(20, 0.1)]


def test_a_run_that_starts_anew_tells_every_step(tmp_path):
    logger(tmp_path, is_resumed=False).log_metrics({"train/loss": 1.0}, 10)
    anew = logger(tmp_path, is_resumed=False)
    anew.log_metrics({"train/loss": 2.0}, 10)
    assert told(anew.journal.path).curves == {"train/loss": [(10, 2.0)]}
