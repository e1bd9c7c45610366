"""A training that MLflow hears of, whatever becomes of the server."""

from __future__ import annotations

import json
import math
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import mlflow_servers
from commands import command, done, finished, wait_for
from musicrec.cli.compose import compose
from musicrec.cli.outputs import flat
from musicrec.errors import TrackingError
from musicrec.registry.journal import JOURNAL, Journal, entries
from musicrec.registry.mlflow_server import new_client
from musicrec.registry.shipper import Shipper
from musicrec.registry.shipping import STATE, Shipment

if TYPE_CHECKING:
    from mlflow import MlflowClient

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> str:
    """An SQLite store for all; making one takes two seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture
def mlflow(store, monkeypatch) -> MlflowClient:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.setattr("musicrec.registry.shipping.MAX_METRICS", 20)  # several requests a run
    return new_client(store)


def begin(folder: Path, *, is_resumed: bool = False, **params: object) -> Journal:
    journal = Journal(folder)
    journal.begin(
        experiment="mine", name="one", tags={"why": "test"}, params=params, is_resumed=is_resumed
    )
    return journal


def trained(folder: Path) -> Journal:
    """The journal of a whole run, with files."""
    journal = begin(folder, **flat(compose("train", [])), long="x" * 9000)
    journal.data("mine", "0f" * 16, "training")
    for step in range(60):
        journal.metrics(step, {"train/loss": 1 / (step + 1), "val/ndcg_10": step / 60})
    (folder / "plots").mkdir()
    for path in (folder / "model.pt", folder / "plots" / "ranks.svg"):
        path.write_bytes(b"here")
        journal.artifact(path, "plots" if path.suffix == ".svg" else "")
    journal.end("FINISHED")
    return journal


def runs(client: MlflowClient, folder: Path) -> list[Any]:
    """Those in MLflow of all runs that the folder's journal tells of, the oldest first."""
    told = [e["key"] for e, _ in entries(folder / JOURNAL) if e["kind"] == "start"]
    mine = [e.experiment_id for e in client.search_experiments()]
    found = {run.data.tags["musicrec.key"]: run for run in client.search_runs(mine)}
    return [found[key] for key in told if key in found]


def curve(client: MlflowClient, run: Any, name: str) -> list[tuple[int, float]]:
    points = client.get_metric_history(run.info.run_id, name)
    return sorted((point.step, point.value) for point in points)


def test_all_that_was_told_arrives(mlflow, tmp_path):
    trained(tmp_path)
    Shipment(tmp_path).send()
    (run,) = runs(mlflow, tmp_path)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "one"
    assert run.data.params["model.dim"] == "128"
    assert run.data.tags["why"] == "test"
    assert curve(mlflow, run, "train/loss") == [(step, 1 / (step + 1)) for step in range(60)]
    assert run.inputs.dataset_inputs[0].dataset.digest == "0f" * 16
    names = [file.path for file in mlflow.list_artifacts(run.info.run_id, "plots")]
    assert names == ["plots/ranks.svg"]


def test_sending_twice_changes_nothing(mlflow, tmp_path):
    trained(tmp_path)
    Shipment(tmp_path).send()
    before = (tmp_path / STATE).read_text()
    again = Shipment(tmp_path)
    assert again.is_done
    again.send()
    assert (tmp_path / STATE).read_text() == before
    # As after a kill between the arrival of a piece and the note of it.
    (tmp_path / STATE).unlink()
    Shipment(tmp_path).send()
    (run,) = runs(mlflow, tmp_path)
    assert len(curve(mlflow, run, "train/loss")) == 60


def test_a_server_that_fails_in_the_middle_is_gone_on_with(mlflow, tmp_path, monkeypatch):
    trained(tmp_path)
    shipment, calls = Shipment(tmp_path), []
    log_batch = shipment._client.log_batch

    def failing(*arguments: Any, **more: Any) -> None:
        calls.append(more)
        if len(calls) == 4:
            raise ConnectionResetError("gone")
        log_batch(*arguments, **more)

    monkeypatch.setattr(shipment._client, "log_batch", failing)
    with pytest.raises(TrackingError, match=r"refused: gone"):
        shipment.send()
    assert 0 < shipment.progress.offset < (tmp_path / JOURNAL).stat().st_size
    Shipment(tmp_path).send()
    (run,) = runs(mlflow, tmp_path)
    assert len(curve(mlflow, run, "train/loss")) == 60


def test_a_resumed_run_is_the_same_run(mlflow, tmp_path):
    journal = begin(tmp_path, epochs=3)
    journal.metrics(1, {"train/loss": 2.0})
    Shipment(tmp_path).send()
    assert runs(mlflow, tmp_path)[0].info.status == "RUNNING"
    journal.close()  # killed: no word of its end
    journal = begin(tmp_path, is_resumed=True, epochs=9)
    journal.metrics(2, {"train/loss": 1.0})
    journal.end("FINISHED")
    Shipment(tmp_path).send()
    (run,) = runs(mlflow, tmp_path)
    assert curve(mlflow, run, "train/loss") == [(1, 2.0), (2, 1.0)]
    assert (run.data.params["epochs"], run.data.tags["resumed/epochs"]) == ("3", "9")
    assert run.info.status == "FINISHED"


def test_a_run_started_anew_in_the_folder_is_another_and_the_first_is_over(mlflow, tmp_path):
    begin(tmp_path)
    Shipment(tmp_path).send()
    begin(tmp_path)
    Shipment(tmp_path).send()
    assert [run.info.status for run in runs(mlflow, tmp_path)] == ["KILLED", "RUNNING"]


def test_a_run_that_the_server_lost_is_sent_whole_again(mlflow, tmp_path):
    trained(tmp_path).metrics(901, {"train/loss": math.inf})
    Shipment(tmp_path).send()
    state = json.loads((tmp_path / STATE).read_text())
    for server in state.values():
        server |= {"run_id": "f" * 32, "offset": server["offset"] - 20}
        server["offset"] = [end for _, end in entries(tmp_path / JOURNAL)][-2]
    (tmp_path / STATE).write_text(json.dumps(state))
    Shipment(tmp_path).send()
    (run,) = runs(mlflow, tmp_path)
    assert len(curve(mlflow, run, "train/loss")) == 61


def test_a_file_that_is_gone_is_named_and_the_rest_arrives(mlflow, tmp_path):
    trained(tmp_path)
    (tmp_path / "model.pt").unlink()
    shipment = Shipment(tmp_path)
    shipment.send()
    assert shipment.missing == ["model.pt"]
    assert runs(mlflow, tmp_path)[0].info.status == "FINISHED"


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Somebody takes the call and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        yield silent.getsockname()[1]


def test_a_server_that_says_nothing_costs_the_end_of_a_training_seconds(
    silent_port, tmp_path, monkeypatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ann:s3cret@127.0.0.1:{silent_port}")
    trained(tmp_path)
    shipper = Shipper(Shipment(tmp_path), print)
    shipper.start(ready=False)
    started = time.monotonic()
    assert not shipper.finish()
    assert time.monotonic() - started < 4


def test_a_server_that_is_away_is_told_of_once_and_without_its_password(tmp_path, monkeypatch):
    port = mlflow_servers.free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ann:s3cret@127.0.0.1:{port}")
    monkeypatch.setattr("musicrec.registry.shipper.FIRST_PAUSE_SECONDS", 0.1)
    trained(tmp_path)
    warnings: list[str] = []
    shipper = Shipper(Shipment(tmp_path), warnings.append)
    shipper.start(ready=False)
    deadline = time.monotonic() + 60
    while shipper._num_attempts < 3:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert not shipper.finish()
    assert warnings == [f"MLflow at http://127.0.0.1:{port} cannot be reached"]
    assert "s3cret" not in "".join(p.read_text() for p in tmp_path.glob("tracking*"))


@pytest.mark.skipif(mlflow_servers.program() is None, reason="no MLflow server: make mlflow")
def test_a_server_killed_in_mid_training_gets_all_of_it_later(postgres, tmp_path, monkeypatch):
    port = mlflow_servers.free_port()
    run_folder = tmp_path / "run"
    long_enough = ("trainer.max_epochs=20", "patience=20", "trainer.log_every_n_steps=1")
    with mlflow_servers.serving(tmp_path, port) as server:
        training = command(
            "train_transformer",
            *("debug=fast", "trainer=cpu", "tracking=mlflow", f"hydra.run.dir={run_folder}"),
            *long_enough,
            cwd=tmp_path,
            MLFLOW_TRACKING_URI=server.uri,
        )
        wait_for(run_folder / STATE, training)
        wait_for(run_folder / "checkpoints" / "last.ckpt", training)
        server.kill()
        assert not (run_folder / "model.pt").exists()
        code, out, err = finished(training)
    assert code == 0, err
    assert err.count(f"warning: MLflow at {server.uri}") == 1
    last = out.strip().splitlines()[-1]
    assert last.endswith("upload it later: python scripts/upload_run.py run=run")
    assert (run_folder / "model.pt").is_file()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    with pytest.raises(TrackingError, match="cannot be reached"):
        Shipment(run_folder).send()
    with mlflow_servers.serving(tmp_path, port) as server:
        assert "uploaded: http" in done(command("upload_run", "run=run", cwd=tmp_path))
        client = new_client(server.uri)
        (run,) = runs(client, run_folder)
        losses = curve(client, run, "train/loss")
        assert [step for step, _ in losses] == list(range(len(losses)))
        metrics = json.loads((run_folder / "metrics.json").read_text())
        assert run.data.metrics["test/ndcg_10"] == metrics["test/ndcg_10"]
        assert run.info.status == "FINISHED"
        files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert files == {"config.yaml", "metrics.json", "model.pt", "plots"}
