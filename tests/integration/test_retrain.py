"""The weekly job with real trainings, on a small invented world in which new listens arrive."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from commands import command, finished
from musicrec.cli import retrain
from musicrec.cli.compose import compose
from musicrec.cli.listens import source_of
from musicrec.cli.retraining import Order
from musicrec.database import engine
from musicrec.database.home import home
from musicrec.registry.policy import Policy
from musicrec.registry.versions import Model
from musicrec.sources.loader import import_source
from musicrec.sources.synthetic import SyntheticWorld

pytestmark = pytest.mark.slow

TINY = ("model=tiny", "trainer=cpu", "trainer.max_epochs=4", "checkpoint_every_steps=1")
#: Learns nothing at all.
IDLE = "optimizer.learning_rate=1e-9"


@pytest.fixture(scope="module")
def world(postgres, tmp_path_factory):
    """A dataset's name, and what lets its next listens arrive; models in a folder of their own."""
    folder = tmp_path_factory.mktemp("world")
    (batch,) = SyntheticWorld(num_tracks=120, num_listeners=60, days=42).batches()
    listens = batch.listens.select(["user_id", "track_id", "occurred_at"]).to_pylist()
    cut = sorted(row["occurred_at"] for row in listens)[int(len(listens) * 0.8)]
    name = f"weekly_{os.getpid()}"
    files = {}
    for part, is_in in (("first", lambda at: at < cut), ("rest", lambda at: at >= cut)):
        files[part] = folder / f"{part}.csv"
        with files[part].open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["user", "track", "at"])
            rows.writerows(
                (row["user_id"], row["track_id"], row["occurred_at"].isoformat())
                for row in listens
                if is_in(row["occurred_at"])
            )

    def arrive(part: str) -> None:
        columns = [f"data.columns.{k}={v}" for k, v in (("user", "user"), ("item", "track"))]
        settings = ["data=table", f"data.path={files[part]}", *columns, "data.columns.time=at"]
        with engine.open_dataset(name, create=True) as dataset:
            import_source(dataset, source_of(compose("import", settings)))

    arrive("first")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MUSICREC_MODELS", str(folder / "models"))
        yield name, arrive, folder
    engine.drop_dataset(name)


def wait_for_checkpoint(process, folder):
    deadline = time.monotonic() + 120
    while not [*folder.glob("*/checkpoints/last.ckpt")]:
        assert process.poll() is None, finished(process)
        assert time.monotonic() < deadline
        time.sleep(0.005)


def order(world, *settings, **policy):
    name, _, _ = world
    policy = Policy(**{"max_latency_ms": 10_000, **policy})
    return Order(name, name, (f"dataset={name}", *TINY, *settings), policy)


def test_the_weekly_job_from_new_listens_to_a_champion(world, capfd):
    name, arrive, folder = world
    model, rounds = Model(name), home() / "retrain" / name

    killed = command("retrain", f"dataset={name}", *TINY, IDLE, cwd=folder)
    wait_for_checkpoint(killed, rounds)
    (training,) = psutil.Process(killed.pid).children()
    training.suspend()
    killed.kill()
    killed.wait()
    assert retrain.carry_out(order(world, IDLE)) == 4, "the training still runs"
    assert f"process {killed.pid} of" in capfd.readouterr().out
    training.kill()
    killed.communicate()

    assert retrain.carry_out(order(world, IDLE, max_latency_ms=1e-6)) == 3
    out = capfd.readouterr().out
    assert "going on with the training" in out
    assert "is refused, and there is still no champion: latency" in out
    assert retrain.carry_out(order(world, IDLE)) == 0
    assert model.linked("champion") == 1

    arrive("rest")
    assert retrain.carry_out(order(world, "optimizer.learning_rate=1e-2")) == 0
    assert "is champion instead of version 1" in capfd.readouterr().out
    assert model.linked("champion") == 2
    assert retrain.carry_out(order(world)) == 0
    assert "nothing new" in capfd.readouterr().out

    told = [json.loads(line) for line in (rounds / "log.jsonl").read_text().splitlines()]
    events = [line["event"] for line in told]
    assert [event for event in events if event in ("busy", "refused", "promoted")] == [
        "busy",
        "refused",
        "promoted",
        "promoted",
    ]
    assert [line["status"] for line in told if line["event"] == "ended"] == [3, 0, 0, 0]


def test_a_training_is_told_to_stop_and_waited_for():
    training = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    time.sleep(0.2)
    retrain._stop_training(training, was_told=False)
    assert training.returncode in (-signal.SIGINT, 1)
