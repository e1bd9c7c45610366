"""Small worlds shared by the tests of a process."""

from __future__ import annotations

import pyarrow as pa
import pytest

from musicrec.interactions.schema import ListenBatch
from musicrec.sources.synthetic import SyntheticWorld
from musicrec.sources.synthetic import world as world_module


@pytest.fixture(scope="session")
def tiny() -> dict[str, int]:
    """The settings of ``world``."""
    return {"seed": 3, "num_tracks": 200, "num_listeners": 60, "days": 182}


@pytest.fixture(scope="session")
def world(tiny: dict[str, int]) -> SyntheticWorld:
    return SyntheticWorld(**tiny)


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch, world: SyntheticWorld) -> list[ListenBatch]:
    """The world's batches, cut so small that there are several."""
    monkeypatch.setattr(world_module, "BATCH_LISTENS", 500)
    return list(world.batches())


@pytest.fixture(scope="session")
def listens(world: SyntheticWorld) -> pa.Table:
    return pa.concat_tables([batch.listens for batch in world.batches()]).unify_dictionaries()


@pytest.fixture(scope="session")
def tracks(world: SyntheticWorld) -> pa.Table:
    return next(world.batches()).tracks
