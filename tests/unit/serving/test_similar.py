"""Neighbours by direction."""

from __future__ import annotations

import asyncio
import weakref

import numpy as np
import pytest
import torch

from drills import bundle_of
from musicrec.serving.bodies import SimilarBody
from musicrec.serving.engine import Engine, Surroundings
from musicrec.serving.similar import Neighbours
from musicrec.serving.similar_routes import SimilarService


@pytest.fixture
def table() -> torch.Tensor:
    """Padding, three tracks in one direction and of different lengths, one across, one without."""
    return torch.tensor(
        [[9.0, 0.0], [1.0, 0.0], [5.0, 0.0], [2.0, 0.1], [0.0, 3.0], [0.0, 0.0]],
    )


def test_the_nearest_is_of_the_same_direction_whatever_its_length(table):
    items, cosines = Neighbours(table).of(1, 2)
    assert items.tolist() == [2, 3]
    assert cosines.tolist() == pytest.approx([1, 2 / (4.01**0.5)])


def test_neither_padding_nor_the_track_itself_is_a_neighbour(table):
    items, _ = Neighbours(table).of(2, 100)
    assert sorted(items.tolist()) == [1, 3, 4, 5]


def test_what_has_no_direction_is_near_nothing(table):
    items, cosines = Neighbours(table).of(1, 4)
    assert dict(zip(items.tolist(), cosines.tolist()))[5] == 0


def test_of_equal_ones_the_smaller_index_comes_first():
    table = torch.ones(40, 3)
    assert Neighbours(table).of(7, 5)[0].tolist() == [1, 2, 3, 4, 5]


def test_a_catalogue_of_one_track_has_no_neighbours():
    assert Neighbours(torch.ones(2, 3)).of(1, 10)[0].tolist() == []


def test_it_agrees_with_a_plain_computation():
    rng = np.random.default_rng(0)
    table = rng.normal(size=(200, 8)).astype(np.float32)
    plain = table @ table[17] / (np.linalg.norm(table, axis=1) * np.linalg.norm(table[17]))
    plain[[0, 17]] = -2
    items, cosines = Neighbours(torch.from_numpy(table)).of(17, 20)
    assert items.tolist() == np.argsort(-plain)[:20].tolist()
    assert cosines == pytest.approx(plain[items], abs=1e-6)


def test_an_engine_that_was_replaced_goes_though_nobody_asks_for_neighbours_again():
    engine = Engine(bundle_of(["t1", "t2", "t3"]), Surroundings())
    engines = [engine]
    service = SimilarService(lambda: engines[0])
    asyncio.run(service.similar(SimilarBody(track_id="t1")))
    service._thread.submit(int).result()  # its thread holds what it did last until then
    gone = weakref.ref(engine)
    engines.clear()
    del engine
    assert gone() is None
