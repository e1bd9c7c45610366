import json

import pytest
from rich.console import Console

from musicrec.cli.job import Busy, Log, alone


def test_a_second_one_is_told_who_is_at_work(tmp_path):
    with alone(tmp_path / "job"):
        pid = json.loads((tmp_path / "job" / "holder.json").read_text())["pid"]
        with (
            pytest.raises(Busy, match=f"process {pid} of .+ since .+ is at work"),
            alone(tmp_path / "job"),
        ):
            pass


def test_the_next_one_begins_when_the_first_has_ended(tmp_path):
    for _ in range(2):
        with alone(tmp_path / "job"):
            pass


def test_a_line_is_for_people_and_for_programs(tmp_path, capsys):
    log = Log(tmp_path / "job" / "log.jsonl", Console(), model="mine")
    log.tell("promoted", "version 3 is champion [bold]", version=3)
    log.note("ended", status=0)
    first, second = map(json.loads, log.path.read_text().splitlines())
    assert first["version"] == 3
    assert first["said"] in capsys.readouterr().out
    assert (second["event"], second["model"], second["status"]) == ("ended", "mine", 0)
