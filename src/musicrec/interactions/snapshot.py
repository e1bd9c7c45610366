"""A dataset frozen on disk: what training maps into memory instead of asking Postgres again.

A snapshot is a folder of plain files::

    items.npy     (interactions,) int32      tracks.parquet   track_id, title, artist, plays
    offsets.npy   (listeners + 1,) int64     users.parquet    user_id, in the rows' order
    times.npy     (interactions,) int64      snapshot.json    counts, timed, fingerprint

It is written under another name and renamed when complete, so a folder that is there is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from musicrec.errors import DataError
from musicrec.interactions.catalogue import Catalogue
from musicrec.interactions.sequence import Sequences

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Facts:
    """What ``snapshot.json`` holds; ``fingerprint`` hashes the content, not its origin."""

    dataset: str
    timed: bool
    num_interactions: int
    num_listeners: int
    catalogue_size: int
    fingerprint: str
    format: int = FORMAT


@dataclass(frozen=True)
class Snapshot:
    """An opened snapshot; the arrays are memory-mapped, the names read when asked for."""

    folder: Path
    facts: Facts
    sequences: Sequences

    @classmethod
    def open(cls, folder: Path) -> Snapshot:
        """Map a snapshot.

        Raises:
            DataError: it is of another format, incomplete, or its arrays disagree with its counts.
        """
        damaged = f"snapshot {folder} is damaged or of another version; delete the folder"
        try:
            facts = Facts(**json.loads((folder / "snapshot.json").read_text()))
            sequences = Sequences(
                items=np.load(folder / "items.npy", mmap_mode="r"),
                offsets=np.load(folder / "offsets.npy"),
                times=np.load(folder / "times.npy", mmap_mode="r"),
                catalogue_size=facts.catalogue_size,
                timed=facts.timed,
            )
        except (OSError, EOFError, ValueError, TypeError) as error:
            raise DataError(damaged) from error
        if facts.format != FORMAT or not (
            len(sequences.items)
            == len(sequences.times)
            == sequences.num_interactions
            == facts.num_interactions
        ):
            raise DataError(damaged)
        return cls(folder, facts, sequences)

    def catalogue(self) -> Catalogue:
        """The tracks in index order."""
        tracks = pq.read_table(self.folder / "tracks.parquet")
        return Catalogue(
            track_ids=tracks["track_id"].to_pylist(),
            titles=tracks["title"].to_pylist(),
            artists=tracks["artist"].to_pylist(),
            play_counts=tracks["plays"].to_numpy(),
        )

    def user_ids(self) -> list[str]:
        """Outside ids in the order of ``Sequences``' rows."""
        ids: list[str] = pq.read_table(self.folder / "users.parquet")["user_id"].to_pylist()
        return ids


@contextmanager
def replaced_when_whole(folder: Path) -> Iterator[Path]:
    """A new folder beside ``folder`` that takes its name when the block ends without an error.

    Two processes may build the same snapshot at once; the second one to finish finds it there
    and drops its own.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        yield unfinished
        for path in unfinished.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        try:
            unfinished.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def write_description(
    folder: Path, *, dataset: str, timed: bool, tracks: pa.Table, user_ids: pa.Array
) -> Facts:
    """Complete a snapshot whose three arrays are written: names, counts and fingerprint.

    Args:
        folder: holds ``items.npy``, ``offsets.npy`` and ``times.npy``.
        tracks: ``track_id, title, artist, plays`` in index order.
        user_ids: outside ids in the order of the rows.
    """
    pq.write_table(tracks, folder / "tracks.parquet")
    pq.write_table(pa.table({"user_id": user_ids}), folder / "users.parquet")
    facts = Facts(
        dataset=dataset,
        timed=timed,
        num_interactions=len(np.load(folder / "items.npy", mmap_mode="r")),
        num_listeners=len(user_ids),
        catalogue_size=tracks.num_rows,
        fingerprint=_fingerprint(folder, tracks, user_ids),
    )
    (folder / "snapshot.json").write_text(json.dumps(asdict(facts), indent=1))
    return facts


def _fingerprint(folder: Path, tracks: pa.Table, user_ids: pa.Array) -> str:
    """Hash of ids, sequences and times; the same listens give it on any machine."""
    digest = hashlib.blake2b(digest_size=16)
    for ids in (tracks["track_id"], user_ids):
        for id_ in ids.to_pylist():
            encoded = id_.encode()
            digest.update(len(encoded).to_bytes(8, "little") + encoded)
    for name in ("items.npy", "offsets.npy", "times.npy"):
        with (folder / name).open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()
