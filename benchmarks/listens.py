"""The data every contestant reads: whole histories, oldest first, as two flat arrays.

Only numpy is needed, so that the environments of the peers can import it.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import NamedTuple

import numpy as np

ML1M = Path(__file__).resolve().parents[2] / "shared/data/ml-1m/ml-1m.sasrec-format.txt.gz"


class Listens(NamedTuple):
    """``items`` int32 from 1, all listeners'; ``u`` owns ``items[offsets[u] : offsets[u + 1]]``."""

    items: np.ndarray
    offsets: np.ndarray

    @property
    def catalogue_size(self) -> int:
        return int(self.items.max())

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    def asked(self) -> np.ndarray:
        """Listeners that leave-one-out asks about: those with three interactions or more."""
        return np.flatnonzero(self.lengths >= 3)

    def training_prefix(self) -> np.ndarray:
        """``(listeners,)`` interactions to train on: all but the last two of who is asked."""
        return np.where(self.lengths >= 3, self.lengths - 2, self.lengths)


def read(path: Path) -> Listens:
    """A snapshot's folder, an ``.npz`` of ``items`` and ``offsets``, or "user item" lines.

    Lines may be gzipped and stand in order of time; items are numbered from 1 in the order in
    which they appear, as an import into Postgres numbers them.
    """
    if path.is_dir():
        return Listens(np.load(path / "items.npy"), np.load(path / "offsets.npy"))
    if path.suffix == ".npz":
        with np.load(path) as stored:
            return Listens(stored["items"], stored["offsets"])
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt") as lines:
        pairs = np.loadtxt(lines, dtype=np.int64)
    users = _numbered(pairs[:, 0])
    order = np.argsort(users, kind="stable")
    items = _numbered(pairs[:, 1]) + 1
    return Listens(
        items[order].astype(np.int32), np.concatenate([[0], np.bincount(users).cumsum()])
    )


def write(listens: Listens, path: Path) -> None:
    np.savez(path, items=np.asarray(listens.items), offsets=np.asarray(listens.offsets))


def _numbered(values: np.ndarray) -> np.ndarray:
    """Numbers from 0 in order of first appearance."""
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]
