"""The YAML of every reader says what its constructor takes, no more and no less."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

OPTIONS = Path(__file__).resolve().parents[3] / "configs" / "data"
READERS = ("table", "sequences", "pairs", "lastfm1k", "listenbrainz", "spotify", "movielens")


def option(name: str) -> Any:
    return OmegaConf.load(OPTIONS / f"{name}.yaml")


def check(node: Any) -> None:
    """Keys and defaults of a node, and of the nodes in it, are those of its ``_target_``."""
    keys = {str(key): node._get_node(key) for key in node if key != "_target_"}
    parameters = inspect.signature(get_class(node["_target_"])).parameters
    assert set(keys) == set(parameters)
    for key, parameter in parameters.items():
        if OmegaConf.is_dict(keys[key]):
            check(keys[key])
        elif parameter.default is not inspect.Parameter.empty:
            assert node[key] == parameter.default


@pytest.mark.parametrize("name", READERS)
def test_an_option_has_the_keys_and_defaults_of_its_constructor(name: str) -> None:
    check(option(name))


@pytest.mark.parametrize("name", READERS)
def test_an_option_becomes_its_source(name: str) -> None:
    config = option(name)
    config.path = "plays"
    if name == "table":
        config.columns.update(user="u", item="i", time="t")
    source = instantiate(config)
    assert (source.name, source.describe()) == (name, "plays")
