"""Where MLflow is, and what is said of it."""

from __future__ import annotations

from musicrec.registry import mlflow_server


def test_no_password_of_an_address_is_shown():
    text = "API request to https://ann:s3cret@mlflow.example:5000/api failed"
    assert mlflow_server.shown(text) == "API request to https://mlflow.example:5000/api failed"
    assert "s3cret" not in mlflow_server.reason(ValueError(text))


def test_without_a_server_runs_go_into_the_home(monkeypatch, musicrec_home):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    uri = mlflow_server.address()
    assert uri == f"sqlite:///{musicrec_home}/mlflow/mlflow.db"
    assert mlflow_server.artifact_folder(uri) == musicrec_home / "mlflow" / "artifacts"
    assert mlflow_server.artifact_folder("http://127.0.0.1:5000") is None
