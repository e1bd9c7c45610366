import zipfile

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
    with pytest.raises(BundleError, match="bundle format 99, this version reads 2"):
        bundles.load(rewritten(path, format_version=99))


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
