"""Marked lines in a crontab, and a wrapper that keeps secrets out of it."""

from __future__ import annotations

import json
import re
import stat
import sys

import pytest

from musicrec.cli import dotenv, schedule
from musicrec.cli.job import alone
from musicrec.errors import ConfigError

OTHERS = ["# mine", "0 1 * * * backup", "MAILTO=me"]

#: What stands in for cron's own program: a file of lines.
CRONTAB = """#!/bin/sh
case "$1" in
  -l) if [ -f "$TABLE" ]; then cat "$TABLE"; else echo "no crontab for me" >&2; exit 1; fi ;;
  -) cat > "$TABLE" ;;
esac
"""


@pytest.fixture
def table(tmp_path, monkeypatch):
    program = tmp_path / "bin" / "crontab"
    program.parent.mkdir()
    program.write_text(CRONTAB)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setenv("TABLE", str(tmp_path / "table"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "table"


def test_the_lines_are_installed_once_however_often_and_others_stay(table):
    table.write_text("\n".join(OTHERS) + "\n")
    schedule.schedule(["install", "dataset=mine"])
    first = table.read_text()
    schedule.schedule(["install", "dataset=mine"])
    assert table.read_text() == first
    lines = first.splitlines()
    assert lines[:3] == OTHERS
    dues = [" ".join(line.split()[:5]) for line in lines[4:-1]]
    assert dues == ["10 3 * * *", "0 4 * * 0", "0 5 1 * *"]
    assert all(sys.executable in line and "dataset=mine" in line for line in lines[4:-1])


def test_a_first_crontab_is_made_and_removing_leaves_what_others_wrote(table):
    schedule.schedule(["install", "dataset=mine"])
    schedule.schedule(["install", "dataset=other"])
    schedule.schedule(["remove", "dataset=mine"])
    assert "dataset=mine" not in table.read_text()
    assert table.read_text().count("dataset=other") == 5
    table.write_text("\n".join(OTHERS) + "\n" + table.read_text())
    schedule.schedule(["remove"])
    assert table.read_text().splitlines() == OTHERS


def test_lines_of_another_folder_stay(table, tmp_path, monkeypatch):
    schedule.schedule(["install", "dataset=mine"])
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    schedule.schedule(["remove"])
    assert table.read_text().count("dataset=mine") == 5


def test_a_block_that_lost_its_end_is_left_alone(table):
    schedule.schedule(["install", "dataset=mine"])
    table.write_text("".join(table.read_text().splitlines(True)[:-1]) + "0 1 * * * backup\n")
    before = table.read_text()
    with pytest.raises(ConfigError, match="lacks the line"):
        schedule.schedule(["remove"])
    assert table.read_text() == before


def test_a_jobs_own_settings_go_to_its_line_alone(table):
    schedule.schedule(["install", "dataset=mine", "retrain.model=small", "graph.batch_size=7"])
    (retrain,) = [line for line in table.read_text().splitlines() if "run retrain" in line]
    assert "model=small" in retrain
    assert "batch_size" not in retrain


def test_a_misspelt_setting_is_refused_by_day(table):
    with pytest.raises(ConfigError, match="did you mean 'model'"):
        schedule.schedule(["install", "dataset=mine", "retrain.modle=small"])
    assert not table.exists()


@pytest.mark.parametrize("setting", ["graph.llm.api_key=abcdef", "graph.llm.base_url=http://a:b@c"])
def test_a_secret_never_gets_into_the_crontab(table, setting):
    with pytest.raises(ConfigError, match="looks like a secret") as error:
        schedule.schedule(["install", "dataset=mine", setting])
    assert not {"abcdef", "a:b@c"} & set(re.split(r"[=\s]", str(error.value)))
    assert not table.exists()


def test_the_environment_stays_out_of_the_crontab_and_what_the_jobs_miss_is_named(
    table, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:hunter22@host/db")
    (tmp_path / ".env").write_text("OPENAI_API_KEY=abcdef\n")
    (tmp_path / ".env").chmod(0o644)
    schedule.schedule(["install", "dataset=mine"])
    said = capsys.readouterr()
    assert not re.search("hunter22|abcdef", table.read_text() + said.out + said.err)
    assert "DATABASE_URL" in said.err
    assert "OPENAI_API_KEY" not in said.err
    assert "chmod 600 .env" in said.err


def test_a_percent_sign_in_the_folders_name_is_no_new_line_to_cron(table, tmp_path, monkeypatch):
    (tmp_path / "100% music").mkdir()
    monkeypatch.chdir(tmp_path / "100% music")
    schedule.schedule(["install", "dataset=mine"])
    assert "cd '" in table.read_text()
    for line in table.read_text().splitlines():
        assert line.startswith("#") or "100\\% music" in line


def test_without_crontab_the_way_out_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="install cron"):
        schedule.schedule(["remove"])


def scheduled(monkeypatch, code: str) -> int:
    """``run`` of a job whose command is a few lines of Python."""
    monkeypatch.setattr(schedule, "commands", lambda *_: [sys.executable, "-c", code])
    return schedule.schedule(["run", "materialize", "dataset=mine"])


def test_a_job_ends_with_its_own_status_and_leaves_json_lines(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("MUSICREC_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert scheduled(monkeypatch, "print('so far'); raise SystemExit(3)") == 3
    folder = tmp_path / "schedule" / "materialize-mine"
    begun, ended = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    assert (begun["event"], begun["job"], begun["dataset"]) == ("begun", "materialize", "mine")
    assert (ended["event"], ended["status"], ended["last"]) == ("ended", 3, "so far")
    assert (folder / "output.log").read_text() == "so far\n"
    assert "ended with status 3" in capfd.readouterr().err


def test_a_job_sees_the_file_of_the_environment_and_what_it_was_given_first(
    tmp_path, monkeypatch, capfd
):
    monkeypatch.setenv("MUSICREC_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "given")
    (tmp_path / ".env").write_text("MLFLOW_TRACKING_URI=file\nOF_THE_FILE='a b'  # why\n")
    monkeypatch.setenv("OF_THE_FILE", "")  # so that the test leaves nothing behind
    monkeypatch.delenv("OF_THE_FILE")
    code = "import os; print(os.environ['MLFLOW_TRACKING_URI'], os.environ['OF_THE_FILE'])"
    assert scheduled(monkeypatch, code) == 0
    assert "given a b" in capfd.readouterr().out


def test_a_job_that_is_still_at_work_is_not_begun_again(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("MUSICREC_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with alone(tmp_path / "schedule" / "materialize-mine"):
        assert scheduled(monkeypatch, "print('ran')") == schedule.BUSY
    said = capfd.readouterr()
    assert "ran" not in said.out
    assert "is at work" in said.err


@pytest.mark.parametrize(
    ("line", "value"),
    [("A=b", "b"), ("export A=b c", "b c"), ('A="b # c"', "b # c"), ("A=b # c", "b"), ("A=", "")],
)
def test_a_file_of_variables_is_read_as_compose_reads_it(tmp_path, line, value):
    (tmp_path / ".env").write_text(f"# said\n\n{line}\n")
    assert dotenv.read(tmp_path / ".env") == {"A": value}


@pytest.mark.parametrize("line", ["hunter22", "A='hunter22"])
def test_a_line_that_is_none_is_told_by_its_number_alone(tmp_path, line):
    (tmp_path / ".env").write_text(f"A=b\n{line}\n")
    with pytest.raises(ConfigError, match="line 2") as error:
        dotenv.read(tmp_path / ".env")
    assert "hunter22" not in str(error.value)
    assert stat.S_ISREG((tmp_path / ".env").stat().st_mode)
