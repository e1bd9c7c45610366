"""The commands as people type them, each in a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import psutil
import torch

ROOT = Path(__file__).resolve().parents[1]

#: What no command here takes, on the busiest machine.
SECONDS = 240


def command(
    script: str,
    *arguments: str,
    cwd: Path,
    by: Sequence[str] = (sys.executable,),
    **environment: str,
) -> subprocess.Popen[str]:
    """``by script.py arguments``; ``by`` is Python, or a launcher and its arguments."""
    return subprocess.Popen(
        [*by, str(ROOT / "scripts" / f"{script}.py"), *arguments],
        cwd=cwd,
        env=os.environ | {"COLUMNS": "120", "PYTHONFAULTHANDLER": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # As in a terminal: what a shell starts in the background ignores Ctrl-C, children too.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


def finished(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit status, stdout and stderr; one that does not end shows where each process stands."""
    try:
        out, err = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(True)]
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.send_signal(signal.SIGABRT)  # faulthandler says where it is
        _, said = process.communicate(timeout=60)
        names = [f"{member.pid} {member.name()}" for member in family if member.is_running()]
        raise AssertionError(f"not ended after {SECONDS} s; left: {names}\n{said}") from None
    return process.returncode, out, err


def done(process: subprocess.Popen[str]) -> str:
    code, out, err = finished(process)
    assert code == 0, err
    return out


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    """Until ``process`` has written ``path``."""
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, finished(process)
        assert time.monotonic() < deadline, f"no {path} after two minutes"
        time.sleep(0.005)


def weights(run: Path) -> dict[str, torch.Tensor]:
    """Those of a run's bundle."""
    content = torch.load(run / "model.pt", weights_only=True)
    return dict(content["weights"])


def assert_same_weights(one: Path, other: Path) -> None:
    """Two runs ended with the same bits."""
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        assert torch.equal(weight, theirs[name]), name
