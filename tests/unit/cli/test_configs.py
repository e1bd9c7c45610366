"""Every config composes and builds; every mistake is one line with the way out."""

from __future__ import annotations

import re

import pytest
from hydra.utils import instantiate

from musicrec.cli.compose import check_sweep, compose, config_folder
from musicrec.errors import ConfigError


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (config_folder() / group).glob("*.yaml"))


@pytest.mark.parametrize("size", options("model"))
def test_a_model_option_builds(size):
    config = compose("train", [f"model={size}"])
    assert instantiate(config.model, catalogue_size=10).catalogue_size == 10


def test_base_is_the_size_people_compare():
    model = compose("train", ["model=base"]).model
    assert (model.dim, model.heads, model.blocks, model.max_length) == (128, 4, 2, 50)


@pytest.mark.parametrize("loss", options("loss"))
def test_a_loss_option_builds(loss):
    instantiate(compose("train", [f"loss={loss}"]).loss)


@pytest.mark.parametrize("trainer", [name for name in options("trainer") if name != "gpu"])
def test_a_trainer_option_composes(trainer):
    assert compose("train", [f"trainer={trainer}"]).trainer.max_epochs >= 1


@pytest.mark.parametrize(
    "group", ["data", "split", "trainer", "tracking", "experiment", "debug", "hparams_search"]
)
def test_every_option_of_a_group_composes(group):
    for option in options(group):
        compose("train", [f"{group}={option}"])


@pytest.mark.parametrize("data", [name for name in options("data") if name != "postgres"])
def test_every_importer_is_an_option_of_import(data):
    assert "_target_" in compose("import", [f"data={data}"]).data


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("modle=small", r"unknown setting 'modle' \(did you mean 'model'\?\)"),
        ("model=smal", r"no such model \(did you mean 'small'\?\); known: base, large, small"),
        ("model.dmi=3", r"unknown setting 'model.dmi' \(did you mean 'model.dim'\?\)"),
        ("batch_siez=3", r"'batch_siez' \(did you mean 'batch_size'\?\)"),
        ("split.test_quantile=0.9", r"is a setting of split=temporal only"),
        ("batch_size=many", r"batch_size='many' must be a whole number, such as 64"),
        ("model.dim=64.5", r"model.dim=64.5 must be a whole number"),
        ("refit=perhaps", r"refit='perhaps' must be a switch"),
        ("a b", r"cannot read a setting"),
    ],
)
def test_a_mistake_is_named_in_one_line(override, said):
    with pytest.raises(ConfigError, match=said) as error:
        compose("train", [override])
    assert "\n" not in str(error.value)


def test_a_whole_number_may_stand_for_a_number():
    assert compose("train", ["optimizer.learning_rate=1"]).optimizer.learning_rate == 1


def test_a_sweep_is_checked_value_by_value():
    check_sweep("train", ["model=tiny,small", "seed=1,2", "optimizer.learning_rate=1e-3,2e-3"])
    with pytest.raises(ConfigError, match="no such model"):
        check_sweep("train", ["seed=1,2", "model=tiny,smal"])


def test_composing_leaves_no_trace_for_the_next():
    compose("train").seed = 99
    assert compose("train").seed != 99


def test_every_default_group_is_explained_beside_it():
    text = (config_folder() / "train.yaml").read_text()
    for group in ("model", "loss", "split", "trainer"):
        (line,) = re.findall(rf"^  - {group}: \w+ +# (.+)$", text, flags=re.MULTILINE)
        assert set(line.split(" | ")) == set(options(group))
