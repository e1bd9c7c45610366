"""Small snapshots for tests that need no Postgres."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from musicrec.interactions.snapshot import Snapshot, replaced_when_whole, write_description


def snapshot_of(histories: list[list[int]], folder: Path) -> Snapshot:
    """Listeners' item indices, oldest first, one play a minute; tracks are named by index."""
    items = np.array([item for history in histories for item in history], dtype=np.int32)
    catalogue_size = int(items.max())
    names = [f"track-{index}" for index in range(1, catalogue_size + 1)]
    with replaced_when_whole(folder) as unfinished:
        np.save(unfinished / "items.npy", items)
        np.save(unfinished / "times.npy", np.arange(len(items)) * 60_000_000)
        np.save(unfinished / "offsets.npy", np.cumsum([0] + [len(h) for h in histories]))
        write_description(
            unfinished,
            dataset="test",
            timed=True,
            tracks=pa.table(
                {
                    "track_id": names,
                    "title": pa.nulls(catalogue_size, pa.string()),
                    "artist": pa.nulls(catalogue_size, pa.string()),
                    "plays": np.bincount(items, minlength=catalogue_size + 1)[1:],
                }
            ),
            user_ids=pa.array([f"listener-{row}" for row in range(len(histories))]),
        )
    return Snapshot.open(folder)


def cycles(num_listeners: int, length: int, catalogue_size: int) -> list[list[int]]:
    """Everyone goes round the catalogue from a place of their own: the next track is certain."""
    return [
        [(listener * 7 + step) % catalogue_size + 1 for step in range(length)]
        for listener in range(num_listeners)
    ]
