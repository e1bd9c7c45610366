import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from musicrec.cli.flags import RECOMMEND, TRAIN, translate
from musicrec.errors import ConfigError


def test_the_old_training_line_becomes_overrides():
    line = "--epochs 10 --batch-size 128 --max-seq-len 50 --output model.pt"
    assert translate(line.split(), TRAIN) == [
        "trainer.max_epochs=10",
        "batch_size=128",
        "model.max_length=50",
        "output=model.pt",
    ]


def test_a_flag_takes_its_value_after_an_equals_sign_too():
    assert translate(["--num-heads=4", "--num-layers", "2"], TRAIN) == [
        "model.heads=4",
        "model.blocks=2",
    ]


def test_overrides_and_hydras_own_flags_pass_untouched():
    arguments = ["-m", "--cfg", "job", "model=tiny,small", "seed=1"]
    assert translate(arguments, TRAIN) == arguments


def test_hydras_flags_may_stand_anywhere():
    assert translate(["seed=1,2", "-m", "model=tiny"], TRAIN) == ["-m", "seed=1,2", "model=tiny"]


def test_an_id_is_never_looked_up_as_another_setting():
    (override,) = translate(["user=${seed}"], RECOMMEND)
    config = OmegaConf.create({"seed": 1, "user": str(read_back(override))})
    assert config.user == "${seed}"


def test_an_unknown_flag_names_the_nearest():
    with pytest.raises(ConfigError, match=r"--bach-size \(did you mean '--batch-size'\?\)"):
        translate(["--bach-size", "3"], TRAIN)


def test_a_flag_without_its_value_is_said():
    with pytest.raises(ConfigError, match="--epochs needs a value"):
        translate(["--epochs"], TRAIN)


def read_back(override: str):
    (parsed,) = OverridesParser.create().parse_overrides([override])
    return parsed.value()


texts = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"]), min_size=1
).filter(lambda text: "${" not in text)  # has a test of its own


@given(texts)
def test_any_id_survives_hydras_grammar(text):
    (override,) = translate(["--user-id", text], RECOMMEND)
    assert str(read_back(override)) == text


@pytest.mark.parametrize("user", ["007", "1e5", "true", "0x1F", "12_3", "a:b", "ünï"])
def test_an_id_that_looks_like_something_else_stays_text(user):
    (override,) = translate([f"user={user}"], RECOMMEND)
    assert str(read_back(override)) == user


def test_ids_of_a_history_stay_text():
    (override,) = translate(["history=[007, 1e5,abc]"], RECOMMEND)
    assert [str(value) for value in read_back(override)] == ["007", "1e5", "abc"]


def test_what_is_quoted_already_is_left_alone():
    assert translate(["user='a b'", "history=['x, y']"], RECOMMEND) == [
        "user='a b'",
        "history=['x, y']",
    ]
