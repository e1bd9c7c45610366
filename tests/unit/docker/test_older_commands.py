"""The commands that people know from the container, word for word."""

from __future__ import annotations

import importlib
import runpy
import shlex
import subprocess
import sys

import pytest

import dockerfiles
from commands import ROOT
from musicrec.cli import flags
from musicrec.cli.compose import compose

PIPELINE = ROOT / "docker" / "ml_pipeline"
DOORS = {
    "train_transformer.py": ("train", "train", flags.TRAIN),
    "generate_interest_graph.py": ("generate_graph", "generate_graph", flags.GENERATE_GRAPH),
    "feature_store/materialize_features.py": ("materialize", "materialize", flags.MATERIALIZE),
}


@pytest.fixture
def asked(monkeypatch):
    """The config that a line typed in /ml_pipeline has its command see."""
    monkeypatch.setenv("MUSICREC_DATASET", "synthetic")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def ask(line):
        script, *words = shlex.split(line)
        module, config, aliases = DOORS[script]
        seen = []
        door = importlib.import_module(f"musicrec.cli.{module}")
        monkeypatch.setattr(door, "main", lambda: seen.append(sys.argv[1:]))
        monkeypatch.setattr(sys, "argv", [script, *words])
        runpy.run_path(str(PIPELINE / script), run_name="__main__")
        (arguments,) = seen
        return compose(config, flags.translate(arguments, aliases))

    return ask


TRAIN = (
    "train_transformer.py --epochs 10 --batch-size 128 --max-seq-len 50 "
    "--output /app/apps/ml/data/model.pt"
)


def test_a_training_makes_the_synthetic_world_where_no_dataset_is_named(asked):
    config = asked(TRAIN)
    assert (config.trainer.max_epochs, config.batch_size, config.model.max_length) == (10, 128, 50)
    assert config.output == "/app/apps/ml/data/model.pt"
    assert config.data._target_.endswith("SyntheticWorld")
    assert config.tracking.mlflow is None


def test_a_training_takes_the_dataset_of_the_container(asked, monkeypatch):
    monkeypatch.setenv("MUSICREC_DATASET", "mine")
    assert asked(TRAIN).dataset == "mine"


def test_a_training_leaves_alone_what_the_line_says(asked, monkeypatch):
    monkeypatch.setenv("MUSICREC_DATASET", "mine")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    config = asked(f"{TRAIN} data=postgres dataset=other tracking=tensorboard")
    assert (config.dataset, config.tracking.mlflow) == ("other", None)


def test_a_training_is_followed_by_mlflow_where_a_server_is_named(asked, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert asked(TRAIN).tracking.mlflow is not None


@pytest.mark.parametrize(
    "line",
    ["generate_interest_graph.py --all-users", "feature_store/materialize_features.py --all"],
)
def test_graphs_and_features_are_of_the_dataset_of_the_container(line, asked, monkeypatch):
    monkeypatch.setenv("MUSICREC_DATASET", "mine")
    assert asked(line).dataset == "mine"
    assert asked(f"{line} dataset=other").dataset == "other"


def test_feast_is_feast_s_own_command_on_the_dataset_of_the_container(tmp_path):
    program = tmp_path / "musicrec"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)

    def said(*words):
        return subprocess.check_output(
            [ROOT / "docker" / "feast.sh", *words],
            env={"PATH": f"{tmp_path}:/usr/bin:/bin", "MUSICREC_DATASET": "mine"},
            text=True,
        ).splitlines()

    assert said("apply", "--skip-source-validation") == [
        *("feast", "dataset=mine", "apply", "--skip-source-validation")
    ]
    assert said() == ["feast", "dataset=mine", "--help"]


def test_the_image_has_the_folders_that_the_commands_name():
    steps = " ".join(
        one.text
        for stage in dockerfiles.lineage(
            dockerfiles.read(ROOT / "docker" / "Dockerfile"), "pipeline"
        )
        for one in stage.instructions
    )
    for folder in (
        "/app/apps/ml/data",
        "/ml_pipeline/logs",
        "/ml_pipeline/feature_store/feast_repo",
    ):
        assert folder in steps
