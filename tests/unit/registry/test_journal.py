"""A run's journal: appended line by line, read back whole."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from musicrec.errors import TrackingError
from musicrec.registry.journal import JOURNAL, Journal, entries, told


def begin(folder: Path, *, is_resumed: bool = False, **params: object) -> Journal:
    journal = Journal(folder)
    journal.begin(experiment="mine", name="one", tags={}, params=params, is_resumed=is_resumed)
    return journal


def kinds(folder: Path) -> list[str]:
    return [entry["kind"] for entry, _ in entries(folder / JOURNAL)]


def test_every_line_is_on_disk_as_soon_as_it_is_told(tmp_path):
    journal = begin(tmp_path)
    journal.metrics(1, {"train/loss": 2.0})
    assert kinds(tmp_path) == ["start", "metrics"]


def test_a_resumed_run_goes_on_and_says_which_settings_are_others(tmp_path):
    begin(tmp_path, seed=1, epochs=3).end("KILLED")
    journal = begin(tmp_path, is_resumed=True, seed=1, epochs=9)
    assert kinds(tmp_path) == ["start", "end", "resume"]
    assert [entry for entry, _ in entries(journal.path)][-1]["changed"] == {"epochs": 9}
    assert told(journal.path).ended is None


def test_a_run_that_starts_anew_tells_nothing_of_the_one_before(tmp_path):
    begin(tmp_path).metrics(5, {"train/loss": 2.0})
    journal = begin(tmp_path)
    journal.metrics(1, {"train/loss": 3.0})
    assert told(journal.path).curves == {"train/loss": [(1, 3.0)]}


def test_a_run_resumed_without_a_journal_starts_one(tmp_path):
    begin(tmp_path, is_resumed=True)
    assert kinds(tmp_path) == ["start"]


def test_half_a_line_that_a_kill_left_is_cut_off(tmp_path):
    begin(tmp_path).close()
    with (tmp_path / JOURNAL).open("a") as file:
        file.write('{"kind": "metr')
    assert kinds(tmp_path) == ["start"]  # whoever reads meanwhile waits for its end
    begin(tmp_path, is_resumed=True)
    assert kinds(tmp_path) == ["start", "resume"]


def test_a_damaged_line_is_named(tmp_path):
    begin(tmp_path).close()
    with (tmp_path / JOURNAL).open("a") as file:
        file.write("{not json}\n")
    with pytest.raises(TrackingError, match=r"tracking.jsonl: the line that ends at byte \d+ is"):
        kinds(tmp_path)


def test_a_loss_that_is_no_number_keeps_every_line_json(tmp_path):
    journal = begin(tmp_path)
    journal.metrics(1, {"train/loss": math.nan})

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    for line in journal.path.read_text().splitlines():
        json.loads(line, parse_constant=refuse)
    assert math.isnan(told(journal.path).curves["train/loss"][0][1])
