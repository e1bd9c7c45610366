import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from musicrec.errors import BundleError
from musicrec.interactions.catalogue import Catalogue
from musicrec.models.sasrec import SASRec
from musicrec.registry import bundle as bundles


@pytest.fixture
def bundle():
    torch.manual_seed(0)
    architecture = {"catalogue_size": 3, "max_length": 5, "dim": 8, "blocks": 1, "heads": 2}
    return bundles.new_bundle(
        SASRec(**architecture, dropout=0.0),
        Catalogue(["a", "b", "c"], ["A", None, "C"], [None, "x", "y"], np.array([3, 2, 1])),
        architecture=architecture,
        config={"seed": 1},
        metrics={"test/ndcg_10": 0.5, "protocol": {"seen": "keep"}},
        data_fingerprint="f00d",
    )


@pytest.fixture
def path(bundle, tmp_path):
    bundles.save(bundle, tmp_path / "model.pt")
    return tmp_path / "model.pt"


def rewritten(path, **changes):
    content = torch.load(path, weights_only=True) | changes
    torch.save(content, path)
    return path


def test_a_bundle_comes_back_as_it_was_saved(bundle, path):
    loaded = bundles.load(path)
    assert loaded.catalogue.track_ids == ["a", "b", "c"]
    assert loaded.catalogue.titles == ["A", None, "C"]
    assert loaded.catalogue.play_counts.tolist() == [3, 2, 1]
    for name in ("architecture", "config", "metrics", "data_fingerprint", "commit", "created_at"):
        assert getattr(loaded, name) == getattr(bundle, name)
    for name, tensor in bundle.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor)


def test_a_bundle_opens_without_unpickling_anything(path):
    torch.load(path, weights_only=True)


def test_a_missing_bundle_says_where_it_looked_and_how_to_make_one(tmp_path):
    with pytest.raises(BundleError, match=rf"no bundle at .*{tmp_path.name}.*make train"):
        bundles.load(tmp_path / "model.pt")


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.7, 0.999])
def test_a_torn_bundle_is_refused(path, keep):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(BundleError, match="torn or no bundle"):
        bundles.load(path)


def test_an_edited_bundle_is_refused(path):
    vocabulary = torch.load(path, weights_only=True)["vocabulary"] | {"track_ids": ["a", "c", "b"]}
    with pytest.raises(BundleError, match="checksum"):
        bundles.load(rewritten(path, vocabulary=vocabulary))


def test_a_changed_weight_is_noticed(path):
    weights = torch.load(path, weights_only=True)["weights"]
    weights["norm.bias"][0] += 1
    with pytest.raises(BundleError, match="checksum"):
        bundles.load(rewritten(path, weights=weights))


def test_a_bundle_of_another_version_names_both(path):
    with pytest.raises(BundleError, match="bundle format 99, this version reads 2 and 3"):
        bundles.load(rewritten(path, format_version=99))


def test_a_bundle_of_format_2_scores_as_it_did(bundle, path):
    torch.manual_seed(1)
    old = SASRec(**bundle.architecture, dropout=0.0, transition_lags=1).eval()
    old.remember(torch.tensor([1, 1]), torch.tensor([2, 3]))
    torch.nn.init.ones_(old.transitions[0].use.bias)
    weights = {
        name.replace("transitions.0.", "transitions."): value
        for name, value in old.state_dict().items()
    }
    content = torch.load(path, weights_only=True) | {"format_version": 2, "weights": weights}
    del content["checksum"], content["ranker"]
    content["checksum"] = bundles._checksum(content, path)
    torch.save(content, path)
    items = torch.tensor([[0, 3, 1]])
    assert torch.equal(bundles.load(path).model(items), old(items))


def test_another_torch_file_is_no_bundle(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "model.pt")
    with pytest.raises(BundleError, match="no musicrec bundle"):
        bundles.load(tmp_path / "model.pt")


def test_a_file_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("ran",))

    torch.save({"format_version": 1, "x": Evil()}, tmp_path / "model.pt")
    with pytest.raises(BundleError):
        bundles.load(tmp_path / "model.pt")


def test_a_failed_save_leaves_the_old_bundle_and_no_litter(bundle, path, monkeypatch):
    before = path.read_bytes()

    def half(content, file):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match="disk full"):
        bundles.save(bundle, path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["model.pt"]


def test_the_file_holds_no_pickled_class(path):
    with zipfile.ZipFile(path) as archive:
        (pickle_name,) = [name for name in archive.namelist() if name.endswith("data.pkl")]
        assert b"musicrec" not in archive.read(pickle_name)


@pytest.mark.parametrize("length", [0, 1, 10_000, 10_001, 25_000])
def test_the_text_under_a_checksum_is_json_whatever_pieces_it_is_made_in(length):
    content = {
        "b": [f'"{n} é' for n in range(length)],
        "a": {"x": [], "e": {}, "n": None},
        "c": 1.5,
    }
    text = "".join(bundles._canonical(content, str))
    assert text == json.dumps(content, sort_keys=True)


def ranked(bundle, **changes):
    ranker = bundles.TrainedRanker(
        text="trees",
        columns=("a", "b"),
        base=1.0,
        plays=np.array([2, 1, 0]),
        metrics={"val/pipeline/ndcg_10": 0.6, "protocol": {"candidates": 100}},
        is_active=True,
    )
    return replace(bundle, ranker=replace(ranker, **changes))


def test_a_ranker_travels_with_its_model(bundle, path):
    bundles.save(ranked(bundle), path)
    ranker = bundles.load(path).ranker
    assert ranker is not None
    assert ranker.plays.tolist() == [2, 1, 0]
    assert replace(ranker, plays=None) == replace(ranked(bundle).ranker, plays=None)


def test_a_bundle_without_a_ranker_has_none(path):
    assert bundles.load(path).ranker is None


def test_a_ranker_of_another_catalogue_is_refused(bundle, path):
    bundles.save(ranked(bundle, plays=np.array([2, 1])), path)
    with pytest.raises(BundleError, match="a ranker of 2 tracks for a model of 3"):
        bundles.load(path)


def test_the_version_names_the_content_wherever_it_is(bundle, path, tmp_path):
    version = bundles.load(path).version
    assert len(version) == 12
    assert bundle.version == version
    bundles.save(bundles.load(path), tmp_path / "copy.pt")
    assert bundles.load(tmp_path / "copy.pt").version == version
    other = ranked(bundle)
    assert other.version != version
    bundles.save(other, path)
    assert bundles.load(path).version == other.version
