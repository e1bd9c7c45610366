import json
import threading

import pytest
import torch

from bundles import saved, small_bundle
from musicrec.errors import BundleError, ConfigError
from musicrec.registry import bundle as bundles
from musicrec.registry import changes
from musicrec.registry.trained import trained_files
from musicrec.registry.versions import Model, known_model, model_names, models_folder, resolve


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MUSICREC_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture
def model():
    return Model("mine")


def registered(model, tmp_path, seed):
    return changes.register(
        model, saved(small_bundle(seed=seed), tmp_path / f"{seed}.pt"), why="a test"
    )


def champion(model, version):
    changes.promote(model, version, instead_of=model.aliased("champion"), why="a test")


def what(model):
    return [(event["what"], event["version"]) for event in model.history()]


def test_models_are_in_the_home_where_no_folder_is_named(monkeypatch, musicrec_home):
    monkeypatch.delenv("MUSICREC_MODELS")
    assert models_folder() == musicrec_home / "models"


def test_a_registered_bundle_is_the_challenger_and_opens_by_name(model, tmp_path):
    version = registered(model, tmp_path, 1)
    assert (version.number, model.aliased("challenger")) == (1, version)
    assert model.aliased("champion") is None
    opened = bundles.load(resolve("models:/mine@challenger"))
    assert opened.data_fingerprint == version.data_fingerprint == "f00d1"
    assert resolve("models:/mine/1").samefile(version.path)


def test_a_version_tells_where_it_is_from(model, tmp_path):
    version = registered(model, tmp_path, 1)
    record = json.loads((version.folder / "record.json").read_text())
    assert record["source"] == str(tmp_path / "1.pt")
    assert record["metrics"]["test/ndcg_10"] == 0.5
    assert "@" in record["registered_by"]
    card = (version.folder / "card.md").read_text()
    assert card.startswith("# mine, version 1\n")
    assert record["digest"] in card
    assert "Intended use" in card


def test_a_bundle_that_is_registered_already_keeps_its_number(model, tmp_path):
    first = registered(model, tmp_path, 1)
    registered(model, tmp_path, 2)
    again = changes.register(model, tmp_path / "1.pt", why="again")
    assert again.number == first.number
    assert model.aliased("challenger") == first
    assert what(model) == [("registered", 1), ("registered", 2)]


@pytest.mark.parametrize("fault", ["torn", "not finite", "nothing there"])
def test_a_bad_bundle_leaves_nothing(model, tmp_path, folder, fault):
    path = tmp_path / "bad.pt"
    if fault == "torn":
        path.write_bytes(saved(small_bundle(), path).read_bytes()[:-100])
    elif fault == "not finite":
        bundle = small_bundle()
        with torch.no_grad():
            bundle.model.item_embedding.weight[1] = float("nan")
        saved(bundle, path)
    with pytest.raises(BundleError):
        changes.register(model, path, why="a test")
    assert not folder.exists()


def test_a_promotion_switches_what_the_champion_is(model, tmp_path):
    first, second = registered(model, tmp_path, 1), registered(model, tmp_path, 2)
    champion(model, first)
    champion(model, second)
    assert bundles.load(resolve("models:/mine@champion")).data_fingerprint == "f00d2"
    assert model.aliased("challenger") is None
    assert model.history()[-1]["before"] == 1


def test_the_link_is_relative_so_the_folder_may_be_moved(model, tmp_path, folder):
    champion(model, registered(model, tmp_path, 1))
    moved = folder.rename(tmp_path / "elsewhere")
    assert bundles.load(moved / "mine" / "champion" / "model.pt")


def test_a_reader_of_the_champion_finds_a_whole_one_at_any_time(model, tmp_path):
    both = [registered(model, tmp_path, 1), registered(model, tmp_path, 2)]
    champion(model, both[0])
    known = {version.path.read_bytes() for version in both}
    path, is_over, found = resolve("models:/mine@champion"), threading.Event(), []

    def read():
        while not is_over.is_set():
            found.append(path.read_bytes() in known)

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(100):
        champion(model, both[(turn + 1) % 2])
    is_over.set()
    reader.join()
    assert len(found) > 20
    assert all(found)


def test_a_rollback_goes_back_one_champion_at_a_time(model, tmp_path):
    for seed in (1, 2, 3):
        champion(model, registered(model, tmp_path, seed))
    version, left = changes.rollback(model, "worse in the evening")
    assert (version.number, left.number) == (2, 3)
    assert changes.rollback(model, "still worse")[0].number == 1
    with pytest.raises(ConfigError, match="no champion before this one: version 1 is the first"):
        changes.rollback(model, "again")
    assert model.aliased("champion").number == 1
    assert model.history()[-1]["why"] == "still worse"


def test_a_rollback_passes_over_who_was_rolled_back(model, tmp_path):
    for seed in (1, 2):
        champion(model, registered(model, tmp_path, seed))
    changes.rollback(model, "2 is bad")
    champion(model, registered(model, tmp_path, 3))
    assert changes.rollback(model, "3 too")[0].number == 1


def test_nothing_is_promoted_whose_file_has_changed(model, tmp_path):
    first, second = registered(model, tmp_path, 1), registered(model, tmp_path, 2)
    champion(model, first)
    second.path.write_bytes(first.path.read_bytes())
    with pytest.raises(BundleError, match="not as it was registered"):
        champion(model, second)
    assert model.aliased("champion") == first


def test_nothing_is_rolled_back_to_whose_file_has_changed(model, tmp_path):
    for seed in (1, 2):
        champion(model, registered(model, tmp_path, seed))
    model.version(1).path.write_bytes(b"torn")
    with pytest.raises(BundleError, match="not as it was registered"):
        changes.rollback(model, "a test")
    assert model.aliased("champion").number == 2


def test_a_challenger_is_not_promoted_against_a_champion_it_was_not_judged_by(model, tmp_path):
    first, second, third = (registered(model, tmp_path, seed) for seed in (1, 2, 3))
    champion(model, first)
    champion(model, second)
    with pytest.raises(ConfigError, match="version 2 of mine became champion while version 3"):
        changes.promote(model, third, instead_of=first, why="judged against 1")
    assert model.aliased("champion") == second


def test_no_number_is_given_twice(model, tmp_path):
    version = registered(model, tmp_path, 1)
    for path in version.folder.iterdir():
        path.unlink()
    version.folder.rmdir()
    assert registered(model, tmp_path, 2).number == 2


def test_what_a_kill_left_of_a_registration_is_cleared_away(model, tmp_path):
    left = model.folder / "versions" / ".1"
    left.mkdir(parents=True)
    (left / "model.pt").write_bytes(b"half")
    assert model.versions() == []
    assert registered(model, tmp_path, 1).number == 1
    assert not left.exists()


def test_a_switch_that_nobody_wrote_down_is_found(model, tmp_path):
    champion(model, registered(model, tmp_path, 1))
    registered(model, tmp_path, 2)
    link = model.folder / "champion"
    link.unlink()
    link.symlink_to("versions/2")
    registered(model, tmp_path, 3)
    assert ("found", 2) in what(model)
    assert changes.rollback(model, "a test")[0].number == 1


def test_half_a_line_of_history_is_cut_off_by_the_next(model, tmp_path):
    registered(model, tmp_path, 1)
    with model.history_path.open("a") as file:
        file.write('{"what": "prom')
    assert what(model) == [("registered", 1)]
    registered(model, tmp_path, 2)
    assert what(model) == [("registered", 1), ("registered", 2)]


def test_two_who_register_at_once_get_numbers_of_their_own(model, tmp_path):
    paths = [saved(small_bundle(seed=seed), tmp_path / f"{seed}.pt") for seed in range(6)]
    threads = [
        threading.Thread(target=changes.register, args=(model, path), kwargs={"why": "a test"})
        for path in paths
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [version.number for version in model.versions()] == [1, 2, 3, 4, 5, 6]
    assert len({version.record["digest"] for version in model.versions()}) == 6


def test_a_path_stays_a_path():
    assert str(resolve("outputs/model.pt")) == "outputs/model.pt"


@pytest.mark.parametrize(
    "text", ["models:/mine", "models:/mine@best", "models:mine/1", "models:/a/x"]
)
def test_a_version_that_is_misspelt_is_refused(text):
    with pytest.raises(ConfigError, match="is no model version; say models:/NAME@champion"):
        resolve(text)


@pytest.mark.parametrize("name", ["../mine", "a/b", "", ".hidden"])
def test_a_name_cannot_leave_the_folder(name):
    with pytest.raises(ConfigError, match="is no name of a model"):
        Model(name)


def test_an_alias_of_a_version_that_is_gone_says_so(model, tmp_path):
    champion(model, registered(model, tmp_path, 1))
    model.version(1).folder.rename(tmp_path / "gone")
    with pytest.raises(BundleError, match="leads to version 1, which is gone"):
        model.aliased("champion")


def test_the_only_model_need_not_be_named(model, tmp_path):
    with pytest.raises(ConfigError, match="no model is registered"):
        known_model(None)
    registered(model, tmp_path, 1)
    assert known_model(None).name == "mine"
    changes.register(Model("other"), tmp_path / "1.pt", why="a test")
    assert model_names() == ["mine", "other"]
    with pytest.raises(ConfigError, match=r"which model\? add name=NAME; there are mine, other"):
        known_model(None)
    with pytest.raises(ConfigError, match=r"no such model \(did you mean 'mine'\?\)"):
        known_model("mime")


def test_whoever_looks_for_weights_finds_each_version_once(model, tmp_path):
    for seed in (1, 2):
        champion(model, registered(model, tmp_path, seed))
    found = [file.path for file in trained_files([models_folder()])]
    assert [path.parent.name for path in found] == ["1", "2"]
