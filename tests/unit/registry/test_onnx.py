"""The ONNX file against torch: same histories, same scores."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from musicrec.errors import BundleError
from musicrec.interactions.catalogue import Catalogue
from musicrec.models.padded import PaddedSASRec
from musicrec.models.sasrec import SASRec
from musicrec.registry import bundle as bundles
from musicrec.registry import onnx as exporting
from musicrec.registry.bundle import Bundle

ITEMS, MAX_LENGTH = 40, 12

CHOICES = {
    "positions": ["rotary", "learned"],
    "feed_forward": ["swiglu", "relu"],
    "similarity": ["cosine", "dot"],
    "repeats": [True, False],
    "transitions": [8, 0],
}
ARCHITECTURES = [dict(zip(CHOICES, choice)) for choice in itertools.product(*CHOICES.values())]


def model_of(**choices: object) -> SASRec:
    torch.manual_seed(0)
    model = SASRec(ITEMS, max_length=MAX_LENGTH, dim=16, blocks=2, heads=4, **choices)
    for name, parameter in model.named_parameters():  # away from the small initial values
        if not name.startswith("item_embedding"):
            torch.nn.init.normal_(parameter, std=0.3)
    for lag in range(len(model.transitions)):
        before, after = torch.randint(1, ITEMS + 1, (2, 400))
        model.remember(before, after, lag)
    return model.eval()


def bundle_of(**choices: object) -> Bundle:
    names = [f"track-{index}" for index in range(1, ITEMS + 1)]
    return bundles.new_bundle(
        model_of(**choices),
        Catalogue(names, ["Olé", *names[1:]], [None] * ITEMS, np.arange(ITEMS, 0, -1)),
        architecture={"catalogue_size": ITEMS, "max_length": MAX_LENGTH, "dim": 16, "heads": 4},
        config={},
        metrics={"protocol": {"seen": "keep"}},
        data_fingerprint="f00d",
    )


def padded(histories: list[list[int]], width: int) -> torch.Tensor:
    items = torch.zeros(len(histories), width, dtype=torch.int64)
    for row, history in enumerate(histories):
        items[row, width - len(history) :] = torch.tensor(history)
    return items


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Bundle:
    path = tmp_path_factory.mktemp("bundle") / "model.pt"
    bundles.save(bundle_of(), path)
    return bundles.load(path)


@pytest.fixture(scope="module")
def exported(bundle, tmp_path_factory) -> exporting.Exported:
    return exporting.export(bundle, tmp_path_factory.mktemp("onnx") / "model.onnx", histories=100)


@pytest.fixture(scope="module")
def session(exported):
    return exporting.open_session(exported.path)


@pytest.mark.parametrize("choices", ARCHITECTURES, ids=lambda c: "-".join(map(str, c.values())))
def test_the_padded_twin_scores_as_the_model_does(choices):
    model = model_of(**choices)
    items = padded([[3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1, 8, 2], [30, 29, 3], [5]], 9)
    with torch.inference_mode():
        scores, _ = PaddedSASRec(model)(items)
        torch.testing.assert_close(scores, model(items), atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_a_file_of_the_other_architecture_scores_as_torch_does(bundle, tmp_path):
    other = replace(bundle, model=model_of(**ARCHITECTURES[-1]))  # every choice unlike the default
    parity = exporting.export(other, tmp_path / "model.onnx", histories=50).parity
    assert parity.largest_difference < 1e-4
    assert parity.same_top == parity.histories == 50


@pytest.mark.slow
def test_the_file_scores_random_histories_of_any_length_as_torch_does(exported):
    assert exported.parity.histories == exported.parity.same_top == 100
    assert exported.parity.largest_difference < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("width", [1, 2, MAX_LENGTH])
@pytest.mark.parametrize("batch", [1, 3])
def test_batch_and_length_are_free(bundle, session, batch, width):
    items = torch.randint(1, ITEMS + 1, (batch, width))
    with torch.inference_mode():
        expected = bundle.model(items)
    scores, hidden = session.run(None, {"items": items.numpy()})
    np.testing.assert_allclose(scores, expected, atol=1e-5, rtol=1e-5)
    assert hidden.shape == (batch, 16)


@pytest.mark.slow
def test_padding_never_wins(session):
    (scores, _) = session.run(None, {"items": np.array([[0, 0, 1], [4, 5, 6]])})
    assert np.isneginf(scores[:, 0]).all()
    assert np.isfinite(scores[:, 1:]).all()


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [[0, 0], [3, 0]], ids=["nothing heard", "padded on the right"])
def test_a_row_without_a_newest_item_scores_nothing_but_nan(session, wrong):
    scores, hidden = session.run(None, {"items": np.array([wrong, [3, 4]])})
    assert np.isnan(scores[0]).all()
    assert np.isnan(hidden[0]).all()
    assert np.isfinite(scores[1, 1:]).all()


@pytest.mark.slow
def test_both_files_say_which_model_they_are_of(bundle, exported):
    facts = {p.key: p.value for p in onnx.load(exported.path).metadata_props}
    names = json.loads(exported.vocabulary.read_text())
    assert facts["model_version"] == names["model_version"] == bundle.version != ""
    assert facts["vocabulary"] == exported.vocabulary.name == "model.vocabulary.json"
    assert facts["max_length"] == str(MAX_LENGTH)


@pytest.mark.slow
def test_the_vocabulary_is_looked_up_by_item_index(bundle, exported):
    names = json.loads(exported.vocabulary.read_text())
    assert [names["track_ids"][index] for index in (0, 1, ITEMS)] == [None, "track-1", "track-40"]
    assert names["titles"][1] == "Olé"
    assert names["artists"][1] is None
    assert len(names["track_ids"]) == len(bundle.catalogue) + 1


@pytest.mark.slow
def test_a_file_that_answers_otherwise_is_not_kept(bundle, exported, tmp_path, monkeypatch):
    other = replace(bundle, model=model_of(similarity="dot"))
    monkeypatch.setattr(exporting, "_traced", lambda *_: onnx.load(exported.path))
    with pytest.raises(BundleError, match="differ from torch's by "):
        exporting.export(other, tmp_path / "model.onnx")
    assert [*tmp_path.iterdir()] == []


def test_a_model_too_large_for_one_file_is_refused_before_it_is_traced(
    bundle, tmp_path, monkeypatch
):
    monkeypatch.setattr(exporting, "MOST_BYTES", 1000)
    with pytest.raises(BundleError, match=r"smaller model\.dim"):
        exporting.export(bundle, tmp_path / "model.onnx")
    assert [*tmp_path.iterdir()] == []
