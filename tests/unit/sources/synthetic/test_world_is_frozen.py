"""The world is pinned: models are judged on it, so it never changes unnoticed.

A new hash means a new world: raise ``world.VERSION`` and record the results anew.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pytest

from musicrec.sources.synthetic import SyntheticWorld

FROZEN = {
    # settings: (catalogue, listens, oracle's ranks)
    (7, 1500, 40): ("94d2f1aadfc047d6", "c33f4040c2a815d1", "eac41232c83e74b7"),
    (3, 200, 60): ("7185ef6e700a9aa4", "2a322038fd54a000", "7c19015e2e4c9497"),
}


def digest(table: pa.Table) -> str:
    """Hash of a table's values, whatever their encoding or chunks."""
    rows = "\n".join(map(repr, zip(*(column.to_pylist() for column in table.columns), strict=True)))
    return hashlib.sha256(rows.encode()).hexdigest()[:16]


def hashes(world: SyntheticWorld) -> tuple[str, str, str]:
    (batch,) = world.batches()
    listens = batch.listens.set_column(
        3, "occurred_at", batch.listens["occurred_at"].cast(pa.int64())
    )
    ranks = np.concatenate(list(world.oracle_ranks().values()))
    return (
        digest(batch.tracks),
        digest(listens),
        hashlib.sha256(ranks.astype("<i4").tobytes()).hexdigest()[:16],
    )


@pytest.mark.parametrize("settings", FROZEN)
def test_world_is_the_one_that_was_frozen(settings: tuple[int, int, int]) -> None:
    seed, num_tracks, num_listeners = settings
    world = SyntheticWorld(seed=seed, num_tracks=num_tracks, num_listeners=num_listeners)
    assert hashes(world) == FROZEN[settings]


def test_another_seed_is_another_world() -> None:
    first, second = (SyntheticWorld(seed=s, num_tracks=200, num_listeners=5) for s in (1, 2))
    assert all(a != b for a, b in zip(hashes(first), hashes(second), strict=True))
