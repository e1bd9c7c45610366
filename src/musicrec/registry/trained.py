"""Which bundles and checkpoints were trained on a listener.

Weights cannot forget; what was trained on somebody can only be named, and trained again.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import torch

#: ``trained``: on data that held the listener. ``maybe``: on the dataset while it held them, and
#: the data themselves are gone. ``unreadable``: nobody can tell.
Verdict = Literal["trained", "maybe", "unreadable"]


@dataclass(frozen=True, slots=True)
class Trained:
    """A file with weights.

    Attributes:
        fingerprint: of the data; None where the file is torn or of another kind.
        dataset: its name; None where nothing says it.
        made_at: when; of a checkpoint, when it was last written.
        listener: the run's setting ``listener=``, an outside id.
    """

    path: Path
    fingerprint: str | None
    dataset: str | None
    made_at: datetime
    listener: str | None


@dataclass(frozen=True, slots=True)
class Suspicion:
    """What is known of the data that held a listener.

    Attributes:
        dataset: its name.
        holding: fingerprints of its states with the listener in them.
        clean: fingerprints of states without.
        since, until: when the dataset held them; both None if that is not known.
    """

    dataset: str
    holding: Collection[str]
    clean: Collection[str]
    since: datetime | None
    until: datetime | None

    def of(self, file: Trained) -> Verdict | None:
        """What is to be said of a file; None if it has nothing to do with the listener."""
        if file.fingerprint is None:
            return "unreadable"
        if file.fingerprint in self.holding:
            return "trained"
        if file.dataset != self.dataset or file.fingerprint in self.clean:
            return None
        if self.since is None or self.until is None:
            return None
        since = self.since.replace(microsecond=0)  # as bundles tell the time
        return "maybe" if since <= file.made_at <= self.until else None


def trained_files(places: Iterable[Path]) -> Iterator[Trained]:
    """Every bundle and checkpoint among the files, and in and below the folders, each once."""
    seen = set()
    for place in places:
        files = [place] if place.is_file() else [*place.rglob("*.pt"), *place.rglob("*.ckpt")]
        for file in sorted(files):
            if file.resolve() not in seen and file.is_file():
                seen.add(file.resolve())
                yield _trained(file.absolute())


def _trained(path: Path) -> Trained:
    made_at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    try:
        # Mapped: the weights of a folder of large models are not read for the few words beside.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        if "identity" in content:
            fingerprint = str(content["identity"]["data_fingerprint"])
            run = path.parent.parent
            dataset, listener = _setting(run, "dataset"), _setting(run, "listener")
            return Trained(path, fingerprint, dataset, made_at, listener)
        listener = content["config"].get("listener")
        return Trained(
            path,
            str(content["data_fingerprint"]),
            str(content["metrics"]["protocol"]["dataset"]),
            datetime.fromisoformat(content["created_at"]),
            None if listener is None else str(listener),
        )
    except Exception:  # torch raises anything from RuntimeError to UnpicklingError here
        return Trained(path, None, None, made_at, None)


def _setting(run: Path, key: str) -> str | None:
    """A top-level setting of a run, as its folder notes it; None where it is null or not noted."""
    try:
        config = (run / ".hydra" / "config.yaml").read_text()
    except OSError:
        return None
    found = re.search(rf"^{key}: (.+)$", config, flags=re.MULTILINE)
    value = found[1].strip("'\"") if found else "null"
    return None if value == "null" else value
