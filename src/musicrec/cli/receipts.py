"""What a receipt of a forgotten listener says, and where it is kept.

It names the listener by a hash of their id alone: whoever has the id can tell whose it is, and the
receipt is not one more place that names them. It is written before anything is erased and again at
the end, so that after a kill the next run knows what there was.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from musicrec.database.personal import ERASED, named_in_path
from musicrec.errors import DataError


@dataclass(slots=True)
class Receipt:
    """One listener of one dataset, over all runs.

    Attributes:
        user_sha256: of the id as UTF-8.
        found, left: rows, keys or folders by the name of the place; ``left`` was counted anew
            after the erasure.
        redis: which server was searched; None where there is none.
        held_since, held_until: when the dataset held the listener; ISO, UTC.
        data_fingerprints: of the states of the data with the listener in them, as far as known.
        searched: files and folders looked through for bundles and checkpoints.
        trained: those with something of the listener in their weights, or that nobody can read.
        files: imported ones that may hold the listener still.
        models: LLMs that were told of their listening.
        not_erased: what the command cannot reach, in sentences.
    """

    user_sha256: str
    dataset: str
    started_at: str
    finished_at: str | None = None
    found: dict[str, int] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)
    redis: str | None = None
    held_since: str | None = None
    held_until: str | None = None
    data_fingerprints: list[str] = field(default_factory=list)
    searched: list[str] = field(default_factory=list)
    trained: list[dict[str, Any]] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    not_erased: list[str] = field(default_factory=list)

    def as_dict(self) -> Mapping[str, Any]:
        """JSON-able."""
        return asdict(self)


def path_of(folder: Path, dataset: str, user_id: str) -> Path:
    """Where a listener's receipt is kept, the same for every run."""
    return folder / f"{dataset}-{user_sha256(user_id)[:16]}.json"


def user_sha256(user_id: str) -> str:
    """How a receipt names a listener."""
    return hashlib.sha256(user_id.encode()).hexdigest()


def earlier(path: Path) -> Receipt | None:
    """The receipt of an earlier run, finished or not.

    Raises:
        DataError: there is one that cannot be read.
    """
    if not path.exists():
        return None
    try:
        return Receipt(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            f"the receipt {path} of an earlier run cannot be read ({type(error).__name__}); move "
            "it away: bundles may then be missing from the new one"
        ) from error


def begun(
    user_id: str,
    dataset: str,
    now: datetime,
    *,
    found: Mapping[str, int],
    since: datetime | None,
    fingerprints: Iterable[str],
    files: Iterable[str],
    models: Iterable[str],
    before: Receipt | None,
) -> Receipt:
    """A receipt of what there is, and of what an earlier run found and cannot be found again.

    Args:
        since: when the dataset got the listener; None if it does not know them (any more).
        before: of the earlier run; one that did not finish is gone on with.
    """
    receipt = Receipt(user_sha256(user_id), dataset, now.isoformat(timespec="seconds"))
    in_path = re.compile(named_in_path(user_id))
    receipt.files = [in_path.sub(rf"\1{ERASED}", file) for file in files]
    receipt.found, receipt.models = dict(found), list(models)
    receipt.data_fingerprints = list(fingerprints)
    if since is not None:
        receipt.held_since = since.isoformat()
        receipt.held_until = now.isoformat()
    if before is None:
        return receipt
    for name in ("files", "models", "data_fingerprints"):
        merged = {*getattr(receipt, name), *getattr(before, name)}
        setattr(receipt, name, sorted(merged))
    receipt.held_since = before.held_since or receipt.held_since
    receipt.held_until = receipt.held_until or before.held_until
    if before.finished_at is None:
        receipt.started_at = before.started_at
        names = {**receipt.found, **before.found}
        receipt.found = {
            name: max(receipt.found.get(name, 0), before.found.get(name, 0)) for name in names
        }
    return receipt
