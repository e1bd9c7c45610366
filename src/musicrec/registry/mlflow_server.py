"""Where MLflow is, how it is asked, and what is said when it does not answer.

``MLFLOW_TRACKING_URI`` names it. Without that, runs go into SQLite at ``mlflow/mlflow.db`` of the
home, their files beside it: no server is needed to write, only to look (``make mlflow``).

The address may carry a password; what is shown, written or raised here never does.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from musicrec.database.home import home
from musicrec.errors import ConfigError

if TYPE_CHECKING:
    from mlflow import MlflowClient

#: mlflow's defaults ask seven times with two minutes each, wait ever longer in between, and tell
#: its makers what is used. Whoever sets one of these keeps their own.
_MANNERS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}

_SQLITE = "sqlite:///"


def address() -> str:
    """The tracking URI, password included: to connect with, not to show."""
    named = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    return named or f"{_SQLITE}{home() / 'mlflow' / 'mlflow.db'}"


def shown(text: str) -> str:
    """``text`` without the name and password of any address in it."""
    return re.sub(r"(\w://)[^/@\s]+@", r"\1", text)


def artifact_folder(uri: str) -> Path | None:
    """Where a store without a server keeps files; None where a server says."""
    return Path(uri.removeprefix(_SQLITE)).parent / "artifacts" if is_local(uri) else None


def is_local(uri: str) -> bool:
    """Whether it is a file of this machine, which needs no server."""
    return uri.startswith(_SQLITE)


def check_installed() -> None:
    """Find out before the work, not after it.

    Raises:
        ConfigError: mlflow-skinny is missing.
    """
    if importlib.util.find_spec("mlflow") is None:
        raise ConfigError(
            "tracking=mlflow needs the package mlflow-skinny; install it with: "
            "pip install --constraint constraints.txt '.[tracking]'"
        )


def new_client(uri: str) -> MlflowClient:
    """A client that gives up soon; it has asked nothing yet.

    The import takes a second and is not for a thread beside a training.
    """
    for name, value in _MANNERS.items():
        os.environ.setdefault(name, value)
    if is_local(uri):
        Path(uri.removeprefix(_SQLITE)).parent.mkdir(parents=True, exist_ok=True)
    from mlflow import MlflowClient

    _gather_headers()
    logging.getLogger("alembic").setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=uri)


def _gather_headers() -> None:
    """Have mlflow look for what adds headers to its requests, but for Feast's part in it.

    Found with the first request, that would import all of Feast beside the training, six seconds
    of CPU, to send whatever server there is the token of the pod's service account.
    """
    from mlflow.utils import plugins

    found = plugins.get_entry_points
    plugins.get_entry_points = lambda group: [
        point for point in found(group) if not point.value.startswith("feast.")
    ]
    try:
        import mlflow.tracking.request_header.registry  # noqa: F401
    finally:
        plugins.get_entry_points = found


def reason(error: BaseException) -> str:
    """Why it went wrong, short and without a password."""
    from requests.exceptions import ConnectionError as Unreachable
    from requests.exceptions import Timeout

    link: BaseException | None = error
    while link is not None:
        if isinstance(link, Timeout):
            return "does not answer in time"
        if isinstance(link, Unreachable):
            return "cannot be reached"
        link = link.__cause__ or link.__context__
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"refused: {shown(first)[:200]}"
