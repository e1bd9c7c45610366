"""Several processes that train as one: real ones, over gloo on this machine's cores."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from commands import (
    ROOT,
    assert_same_weights,
    command,
    done,
    finished,
    wait_for,
    weights,
)

pytestmark = pytest.mark.slow

# Small batches: many steps, and a last one of an epoch with a share for one rank only.
SETTINGS = ("debug=fast", "batch_size=7", "trainer.log_every_n_steps=1")
#: Each process draws for itself which entries to drop and which transitions to forget.
WITHOUT_DRAWS = ("model.dropout=0", "model.transitions=0")
TWO = ("trainer=ddp", "trainer.accelerator=cpu")
TORCHRUN = (str(Path(sys.executable).with_name("torchrun")), "--nproc-per-node=2")

#: Loss by step, two processes against one: only the order of float32 sums differs.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def runs(postgres, tmp_path_factory) -> Callable[[str], tuple[Path, str, str]]:
    """Folder, stdout and stderr of a run by one process, by two, and by torchrun's two.

    Only torchrun's drops and forgets.
    """
    folder = tmp_path_factory.mktemp("ddp")

    def start(name: str, *arguments: str, **more):
        arguments = (*SETTINGS, *arguments, f"hydra.run.dir={folder}/{name}")
        return command("train_transformer", *arguments, cwd=folder, **more)

    started = {
        "one": start("one", "trainer=cpu", *WITHOUT_DRAWS),
        "two": start("two", *TWO, *WITHOUT_DRAWS),
        "torchrun": start("torchrun", *TWO, by=TORCHRUN),
    }
    ended = {name: finished(process) for name, process in started.items()}
    for code, _, err in ended.values():
        assert code == 0, err
    return lambda name: (folder / name, *ended[name][1:])


def losses(run: Path) -> list[float]:
    events = EventAccumulator(str(run / "tensorboard"), {"scalars": 0}).Reload()
    return [event.value for event in events.Scalars("train/loss")]


def test_two_processes_give_the_loss_curve_of_one(runs):
    one, two = losses(runs("one")[0]), losses(runs("two")[0])
    assert len(one) > 20
    assert one[-1] < one[0] - 0.01
    assert two == pytest.approx(one, rel=TOLERANCE)


def test_two_processes_reach_the_weights_and_metrics_of_one(runs):
    one, two = (weights(runs(name)[0]) for name in ("one", "two"))
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=0, atol=1e-4)
    one, two = (json.loads((runs(name)[0] / "metrics.json").read_text()) for name in ("one", "two"))
    assert two["val/ndcg_10"] == pytest.approx(one["val/ndcg_10"], abs=0.01)
    assert two["protocol"] == one["protocol"]


@pytest.mark.parametrize("name", ["two", "torchrun"])
def test_there_is_one_folder_and_one_voice(runs, name):
    run, out, err = runs(name)
    assert len([*run.rglob("model.pt"), *run.rglob("metrics.json")]) == 2
    assert len(list(run.rglob("*.ckpt"))) == 3
    assert len({path.name.split(".")[-2] for path in run.rglob("events.out.*")}) == 1  # its pid
    assert {path.name for path in run.parent.iterdir()} == {"one", "two", "torchrun"}
    assert out.count("written: ") == 1
    assert len(re.findall(r"^epoch +1/", out, flags=re.MULTILINE)) == 1
    # torchrun says that it gives each process one thread.
    assert not [line for line in err.splitlines() if "OMP_NUM_THREADS" not in line.upper()], err


def rank_1_of(process) -> int:
    """The process that Lightning's launcher started for ``process``."""
    for task in Path(f"/proc/{process.pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            if b"train_ddp_process_1" in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
    raise AssertionError("rank 1 is not there")


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the other process in /proc")
def test_a_training_with_either_process_killed_ends_as_torchruns_whole_one(runs, tmp_path):
    cut = tmp_path / "cut"
    settings = (*SETTINGS, *TWO, "checkpoint_every_steps=3", f"hydra.run.dir={cut}")
    last = cut / "checkpoints" / "last.ckpt"

    process = command("train_transformer", *settings, cwd=tmp_path)
    wait_for(last, process)
    os.kill(rank_1_of(process), signal.SIGKILL)
    code, _, err = finished(process)
    assert code == 2
    assert len(err.strip().splitlines()) == 1, err
    assert err.startswith("error: rank 1 (exit status -9) ended in the middle of the training; ")

    (cut / "checkpoints" / "previous.ckpt").unlink(missing_ok=True)
    process = command("train_transformer", *settings, "ckpt_path=last", cwd=tmp_path)
    wait_for(cut / "checkpoints" / "previous.ckpt", process)  # its first save of its own
    other = rank_1_of(process)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    deadline = time.monotonic() + 30
    while is_running(other):
        assert time.monotonic() < deadline, "rank 1 outlived rank 0 by half a minute"
        time.sleep(0.05)
    assert not (cut / "model.pt").exists()

    done(command("train_transformer", *settings, "ckpt_path=last", cwd=tmp_path))
    assert_same_weights(runs("torchrun")[0], cut)


def test_a_sparse_gradient_is_shared_too(postgres, tmp_path):
    # So many draws that every item is among the negatives, and the estimate hardly varies.
    sampled = (*SETTINGS, *WITHOUT_DRAWS, "loss=sampled", "loss.num_negatives=20000")
    started = [
        command("train_transformer", *sampled, *how, f"hydra.run.dir={tmp_path}/{name}", cwd=ROOT)
        for name, how in (("one", ["trainer=cpu"]), ("two", TWO))
    ]
    for process in started:
        done(process)
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert one[-1] < one[0] - 0.01
    assert two == pytest.approx(one, rel=2e-3)


def test_a_mistake_that_all_processes_make_is_one_line(postgres, tmp_path):
    process = command("train_transformer", *SETTINGS, *TWO, "model.heads=3", cwd=tmp_path)
    code, _, err = finished(process)
    assert code == 2
    assert len(err.strip().splitlines()) == 1, err
    assert err.startswith("error: model.heads=3 does not divide")


def test_another_number_of_processes_than_planned_is_refused_in_one_line(postgres, tmp_path):
    process = command(
        "train_transformer", *SETTINGS, *TWO, "trainer.devices=3", cwd=tmp_path, by=TORCHRUN
    )
    code, _, err = finished(process)
    assert code != 0
    # The rest is torchrun's own report.
    assert [line for line in err.splitlines() if line.startswith("error: ")] == [
        "error: torchrun started 2 processes, but trainer.devices=3 and trainer.num_nodes=1 make 3;"
        " say trainer=ddp, the processes per node as trainer.devices and the nodes as "
        "trainer.num_nodes"
    ]
    assert "src/musicrec/" not in err  # no traceback of ours
