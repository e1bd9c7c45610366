"""A run's journal on its way to MLflow: in order, in batches, and on from where it stopped.

How far it came stands beside the journal in ``tracking.state.json``, for each server by itself,
and is written after what it speaks of has arrived. So a piece may be sent twice and none is left
out; twice changes nothing: MLflow knows a number by metric, step and time, a file by its name, and
a run by the journal's key, which is one of its tags.
"""

from __future__ import annotations

import getpass
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from musicrec.errors import TrackingError
from musicrec.registry.journal import JOURNAL, Entry, entries
from musicrec.registry.mlflow_server import (
    address,
    artifact_folder,
    is_local,
    new_client,
    reason,
    shown,
)
from musicrec.registry.whole import whole_file

if TYPE_CHECKING:
    from mlflow.entities import Metric

STATE = "tracking.state.json"
KEY_TAG = "musicrec.key"

#: What the REST API takes in one request, with room for one more line of the journal.
MAX_METRICS, MAX_PARAMS, MAX_VALUE_CHARS = 700, 100, 6000

#: Silence that means nothing yet, and the bytes of a file that a living server takes in a second.
PATIENCE_SECONDS, FILE_BYTES_PER_SECOND = 2.0, 10e6


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a journal came on one server.

    Attributes:
        offset: the byte up to which all has arrived.
        key: of the journal's run there; None before the first.
        experiment_id, run_id: MLflow's.
        is_running: it was not ended there.
    """

    offset: int = 0
    key: str | None = None
    experiment_id: str | None = None
    run_id: str | None = None
    is_running: bool = False


class Shipment:
    """One journal and one server. Not to be shared by threads, but for what is only read.

    Args:
        folder: the run's.

    Attributes:
        server: its address as it may be shown.
        is_local: it is a file of this machine, and no server at all.
        progress: how far it came.
        missing: files that the journal names and the folder does not have any more.
        due: the ``time.monotonic`` until which a server that is well may be silent.
    """

    def __init__(self, folder: Path) -> None:
        uri = address()
        self.folder = folder
        self.server = shown(uri)
        self.is_local = is_local(uri)
        self.missing: list[str] = []
        self.due = time.monotonic() + PATIENCE_SECONDS
        self._artifacts = artifact_folder(uri)
        self._client = new_client(uri)
        self._states: dict[str, Any] = _read_states(folder)
        self.progress = Progress(**self._states.get(self.server, {}))
        if self.progress.offset > self._size():  # somebody put an older journal there
            self.progress = Progress()

    @property
    def is_done(self) -> bool:
        """Whether all that was told so far has arrived."""
        return self.progress.offset >= self._size()

    def send(self) -> None:
        """Everything that was told and has not arrived.

        Raises:
            TrackingError: the server is away or refuses; what arrived until then is remembered.
        """
        try:
            try:
                self._send()
            except Exception as error:
                lost = getattr(error, "error_code", None) == "RESOURCE_DOES_NOT_EXIST"
                if not lost or self.progress.run_id is None:
                    raise
                # The server begins anew, from another disk for one; so does the run there.
                self.progress = Progress()
                self._send()
        except TrackingError:
            raise
        except Exception as error:  # what lies between here and a server raises anything
            raise TrackingError(f"MLflow at {self.server} {reason(error)}") from error

    def grant(self, num_bytes: int = 0) -> None:
        """Wait for an answer from now on, as long as a server that is well may need."""
        seconds = PATIENCE_SECONDS + num_bytes / FILE_BYTES_PER_SECOND
        self.due = max(self.due, time.monotonic() + seconds)

    def link(self) -> str | None:
        """Where a browser sees the run; None where no server shows it."""
        if self._artifacts is not None or self.progress.run_id is None:
            return None
        run = f"experiments/{self.progress.experiment_id}/runs/{self.progress.run_id}"
        return f"{self.server.rstrip('/')}/#/{run}"

    def _send(self) -> None:
        from mlflow.entities import Metric

        numbers: list[Metric] = []
        reached = self.progress.offset
        for entry, end in entries(self.folder / JOURNAL, self.progress.offset):
            is_metrics = entry["kind"] == "metrics"
            if numbers and (not is_metrics or len(numbers) > MAX_METRICS):
                self._log(reached, metrics=numbers)
                numbers = []
            if is_metrics:
                numbers += [
                    Metric(name, float(value), entry["time"], entry["step"])
                    for name, value in entry["values"].items()
                ]
            else:
                self._SENDERS[entry["kind"]](self, entry, end)
            reached = end
        if numbers:
            self._log(reached, metrics=numbers)

    def _log(self, reached: int, **what: list[Any]) -> None:
        self.grant()
        self._client.log_batch(self.progress.run_id, **what)
        self._arrived(reached)

    def _start(self, entry: Entry, end: int) -> None:
        self.grant()
        if self.progress.is_running and self.progress.key != entry["key"]:
            self._client.set_terminated(self.progress.run_id, "KILLED")
        experiment_id = self._experiment(entry["experiment"])
        found = self._client.search_runs(
            [experiment_id], f"tags.`{KEY_TAG}` = '{entry['key']}'", max_results=1
        )
        if found:
            run_id = found[0].info.run_id
            self._client.update_run(run_id, status="RUNNING")
        else:
            names = {KEY_TAG: entry["key"], "mlflow.user": _user()}
            run_id = self._client.create_run(
                experiment_id, start_time=entry["time"], run_name=entry["name"], tags=names
            ).info.run_id
        self._params(run_id, entry["params"])
        self._tags(run_id, entry["tags"])
        self._arrived(
            end, key=entry["key"], experiment_id=experiment_id, run_id=run_id, is_running=True
        )

    def _experiment(self, name: str) -> str:
        known = self._client.get_experiment_by_name(name)
        if known is None:
            place = self._artifacts.as_uri() if self._artifacts else None
            try:
                return str(self._client.create_experiment(name, artifact_location=place))
            except Exception as error:  # mlflow's, which is imported where it is used
                if getattr(error, "error_code", None) != "RESOURCE_ALREADY_EXISTS":
                    raise
                known = self._client.get_experiment_by_name(name)  # another run was faster
        if known is None or known.lifecycle_stage != "active":
            raise TrackingError(
                f"MLflow at {self.server}: experiment {name!r} is deleted there; restore it, or "
                "say tracking.mlflow.experiment=NAME"
            )
        return str(known.experiment_id)

    def _params(self, run_id: str, params: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        rest = iter(params.items())
        while some := [Param(name, _short(value)) for name, value in islice(rest, MAX_PARAMS)]:
            self.grant()
            self._client.log_batch(run_id, params=some)

    def _tags(self, run_id: str, tags: Mapping[str, Any]) -> None:
        from mlflow.entities import RunTag

        if tags:
            self.grant()
            some = [RunTag(name, _short(value)) for name, value in tags.items()]
            self._client.log_batch(run_id, tags=some)

    def _resume(self, entry: Entry, end: int) -> None:
        self.grant()
        self._client.update_run(self.progress.run_id, status="RUNNING")
        # A param may not change in MLflow, and the first value was true as well.
        changed = {f"resumed/{name}": value for name, value in entry["changed"].items()}
        self._tags(str(self.progress.run_id), changed)
        self._arrived(end, is_running=True)

    def _more_tags(self, entry: Entry, end: int) -> None:
        self._tags(str(self.progress.run_id), entry["tags"])
        self._arrived(end)

    def _data(self, entry: Entry, end: int) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        self.grant()
        source = json.dumps({"dataset": entry["name"]})
        dataset = Dataset(entry["name"], entry["digest"], "musicrec", source)
        role = [InputTag("mlflow.data.context", entry["role"])]
        self._client.log_inputs(self.progress.run_id, [DatasetInput(dataset, role)])
        self._arrived(end)

    def _artifact(self, entry: Entry, end: int) -> None:
        file = self.folder / entry["path"]
        if file.is_file():
            self.grant(file.stat().st_size)
            self._client.log_artifact(self.progress.run_id, str(file), entry["folder"] or None)
        else:
            self.missing.append(entry["path"])
        self._arrived(end)

    def _end(self, entry: Entry, end: int) -> None:
        self.grant()
        self._client.set_terminated(self.progress.run_id, entry["status"], entry["time"])
        self._arrived(end, is_running=False)

    _SENDERS: ClassVar = {
        "start": _start,
        "resume": _resume,
        "tags": _more_tags,
        "data": _data,
        "artifact": _artifact,
        "end": _end,
    }

    def _arrived(self, offset: int, **more: Any) -> None:
        self.progress = Progress(**{**asdict(self.progress), "offset": offset, **more})
        self._states[self.server] = asdict(self.progress)
        with whole_file(self.folder / STATE) as file:
            file.write((json.dumps(self._states, indent=1) + "\n").encode())

    def _size(self) -> int:
        return (self.folder / JOURNAL).stat().st_size


def _read_states(folder: Path) -> dict[str, Any]:
    path = folder / STATE
    return json.loads(path.read_text()) if path.exists() else {}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's number without a name
        return str(os.getuid())


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= MAX_VALUE_CHARS else f"{text[: MAX_VALUE_CHARS - 1]}…"
