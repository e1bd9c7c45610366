"""Of several processes with one command line the first speaks, and the others follow in silence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TASK = """
from pathlib import Path
from musicrec.cli import door
from musicrec.errors import ConfigError

def task(config):
    if config.seed == 0:
        raise ConfigError("seed=0 will not do")
    Path(f"ran_{config.seed}").touch()

door.run("train", task, {}, is_shared=lambda config: config.trainer.devices == 2)
"""
TOGETHER = ("trainer=ddp", "hydra.run.dir=run")


def run(folder: Path, *settings: str, rank: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", TASK, *settings],
        cwd=folder,
        env=os.environ | {"LOCAL_RANK": str(rank)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("mistake", ["seed=0", "sede=1"])
def test_the_first_says_what_is_wrong(tmp_path, mistake):
    ended = run(tmp_path, *TOGETHER, mistake, rank=0)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: ")
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize("mistake", ["seed=0", "sede=1"])
def test_a_follower_says_nothing_and_ends_well(tmp_path, mistake):
    # Lightning kills the first process, which speaks, when another ends otherwise.
    ended = run(tmp_path, *TOGETHER, mistake, rank=1)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_a_follower_has_no_folder_of_its_own(tmp_path):
    assert run(tmp_path, *TOGETHER, "seed=7", rank=1).stderr == ""
    assert [path.name for path in tmp_path.iterdir()] == ["ran_7"]


def test_a_process_that_trains_alone_speaks_whatever_its_number(tmp_path):
    ended = run(tmp_path, "trainer=cpu", "hydra.run.dir=run", "seed=0", rank=1)
    assert ended.returncode == 2
    assert ended.stderr == "error: seed=0 will not do\n"
