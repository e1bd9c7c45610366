"""What the door says of tracking before and after a training."""

from __future__ import annotations

import importlib.util
import shlex

import pytest

from musicrec.cli import tracking
from musicrec.cli.compose import compose
from musicrec.errors import ConfigError


def test_tensorboard_is_there_whoever_else_listens():
    for option in ("tensorboard", "mlflow"):
        target = compose("train", [f"tracking={option}"]).tracking.tensorboard._target_
        assert target.endswith("TensorBoardLogger")


def test_mlflow_without_its_package_is_refused_before_the_work(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    tracking.check(compose("train", []))
    with pytest.raises(ConfigError, match=r"needs the package mlflow-skinny; install it with"):
        tracking.check(compose("train", ["tracking=mlflow"]))


@pytest.mark.parametrize("name", ["plain/2026-01-31_12-00-00", "a b, c=d", "it's"])
def test_the_upload_command_survives_shell_and_hydra(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    *_, setting = shlex.split(tracking.upload_command(tmp_path / name))
    assert compose("upload_run", [setting]).run == name
