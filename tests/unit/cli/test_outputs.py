"""A run folder belongs to one training at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from musicrec.cli import outputs
from musicrec.errors import ConfigError

OTHER = """
import sys, time
from pathlib import Path
from musicrec.cli import outputs
outputs.claim(Path(sys.argv[1]), None)
print("claimed", flush=True)
time.sleep(60)
"""


@pytest.fixture
def other(tmp_path) -> Iterator[subprocess.Popen[str]]:
    """Another process with a training in the same folder."""
    with subprocess.Popen(
        [sys.executable, "-c", OTHER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "claimed\n"
        yield process
        process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("ckpt_path", [None, "last"])
def test_a_second_training_in_the_folder_is_refused(tmp_path, other, ckpt_path):
    with pytest.raises(ConfigError, match=r"another training is writing into .*hydra\.run\.dir"):
        outputs.claim(tmp_path, ckpt_path)


@pytest.mark.slow
def test_a_killed_training_leaves_the_folder_to_the_next(tmp_path, other):
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    outputs.claim(tmp_path, "last")


@pytest.mark.slow
def test_two_folders_do_not_meet(tmp_path, other):
    beside = tmp_path / "beside"
    beside.mkdir()
    outputs.claim(beside, None)


def test_a_finished_run_is_written_over_only_where_it_is_resumed(tmp_path):
    (tmp_path / "model.pt").touch()
    with pytest.raises(ConfigError, match=r"holds a finished run's model\.pt"):
        outputs.claim(tmp_path, None)
    outputs.claim(tmp_path, "last")
