"""A real MLflow server, from the environment that ``make mlflow`` makes, to be killed at will."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

SECONDS = 180


def program() -> Path | None:
    """``MUSICREC_TEST_MLFLOW``, or the one of ``.venv-mlflow``; None where there is neither."""
    named = os.environ.get("MUSICREC_TEST_MLFLOW")
    place = Path(named) if named else ROOT / ".venv-mlflow" / "bin" / "mlflow"
    return place if place.exists() else None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class MlflowServer:
    """One on ``folder``'s SQLite and files; another on the same folder takes over from it."""

    def __init__(self, folder: Path, port: int) -> None:
        self.uri = f"http://127.0.0.1:{port}"
        quiet = {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | quiet
        self._process = subprocess.Popen(
            [
                str(program()),
                *("server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
                *("--backend-store-uri", f"sqlite:///{folder}/mlflow.db"),
                *("--artifacts-destination", str(folder / "artifacts")),
            ],
            env=environment,
            stdout=(folder / "server.log").open("ab"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def wait(self) -> None:
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=5).close()
                return
            except OSError:
                assert self._process.poll() is None, "the MLflow server ended while starting"
                assert time.monotonic() < deadline, f"no MLflow server after {SECONDS} s"
                time.sleep(0.1)

    def kill(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@contextmanager
def serving(folder: Path, port: int) -> Iterator[MlflowServer]:
    server = MlflowServer(folder, port)
    try:
        server.wait()
        yield server
    finally:
        server.kill()
