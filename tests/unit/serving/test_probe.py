"""A model is asked before it answers anybody."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
import torch

from musicrec.errors import BundleError
from musicrec.interactions.catalogue import Catalogue
from musicrec.models.sasrec import SASRec
from musicrec.registry import bundle as bundles
from musicrec.registry.bundle import Bundle
from musicrec.serving.engine import Engine, Surroundings
from musicrec.serving.probe import probe
from musicrec.serving.ranker import Ranker


def bundle_of(num_tracks: int, *, named: int | None = None, **sizes: Any) -> Bundle:
    torch.manual_seed(0)
    sizes = {"max_length": 4, "dim": 8, "blocks": 1, "heads": 2} | sizes
    architecture = {"catalogue_size": num_tracks, **sizes}
    ids = [f"t{number}" for number in range(num_tracks if named is None else named)]
    return bundles.new_bundle(
        SASRec(**architecture),
        Catalogue(ids, [None] * len(ids), [None] * len(ids), np.ones(len(ids), np.int64)),
        architecture=architecture,
        config={},
        metrics={"protocol": {"seen": "keep"}},
        data_fingerprint="",
    )


class Trees:
    """Answers with one value, as LightGBM's booster would."""

    def __init__(self, value: float) -> None:
        self._value = value

    def predict(self, features: np.ndarray, num_threads: int) -> np.ndarray:
        return np.full(len(features), self._value)


@pytest.mark.parametrize("max_length", [1, 2, 50])
def test_a_good_model_passes(max_length):
    probe(bundle_of(9, max_length=max_length), None)


def test_a_catalogue_of_one_track_passes():
    probe(bundle_of(1), None)


@pytest.mark.parametrize("weight", [float("nan"), float("inf")])
def test_one_weight_that_is_not_finite_is_named(weight):
    bundle = bundle_of(9)
    with torch.no_grad():
        bundle.model.item_embedding.weight[7, 3] = weight
    with pytest.raises(BundleError, match=r"item_embedding.weight holds weights that are not"):
        probe(bundle, None)


def test_finite_weights_whose_scores_overflow_are_refused():
    bundle = bundle_of(9)
    with torch.no_grad():
        bundle.model.log_temperature.fill_(1000.0)
    with pytest.raises(BundleError, match="not finite"):
        probe(bundle, None)


def test_a_model_that_tells_no_track_from_another_is_refused():
    bundle = bundle_of(9, repeats=False)
    with torch.no_grad():
        bundle.model.item_embedding.weight.zero_()
    with pytest.raises(BundleError, match="all tracks alike"):
        probe(bundle, None)


def test_an_empty_catalogue_is_refused():
    with pytest.raises(BundleError, match="empty"):
        probe(bundle_of(0), None)


def test_a_model_of_another_size_than_its_vocabulary_is_refused():
    with pytest.raises(BundleError, match="scores 9 tracks, and it names 8"):
        probe(bundle_of(9, named=8), None)


def test_a_ranker_that_answers_nan_is_refused():
    with pytest.raises(BundleError, match="ranker"):
        probe(bundle_of(9), Ranker(Trees(float("nan")), 1.0, np.zeros(10, np.float32)))


def test_a_ranker_that_answers_passes():
    probe(bundle_of(9), Ranker(Trees(0.5), 1.0, np.zeros(10, np.float32)))


def test_an_engine_goes_with_its_last_holder_and_waits_for_no_collection():
    engine = Engine(bundle_of(9), Surroundings())
    engine.survey()
    engine.indices(["t1"])
    probe(engine.bundle, engine.pipeline.ranker)
    engine.scoring.scores([np.array([1, 2])])
    gone = weakref.ref(engine), weakref.ref(engine.bundle), weakref.ref(engine.bundle.model)
    gc.disable()
    try:
        del engine
        assert [each() for each in gone] == [None, None, None]
    finally:
        gc.enable()
