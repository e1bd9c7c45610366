"""The Dockerfile: nobody special runs it, packages are pinned, and what it copies is there."""

from __future__ import annotations

import fnmatch
import re
import subprocess
import sys
import tomllib

import pytest

import dockerfiles
from commands import ROOT
from musicrec.cli.compose import compose
from musicrec.cli.console import VERBS

STAGES = dockerfiles.read(ROOT / "docker" / "Dockerfile")
IMAGES = ("pipeline", "serve", "mlflow")
REQUIREMENTS = ROOT / "docker" / "requirements.py"


def of(name, word):
    """Instructions of the stage and of those below it."""
    return [one for stage in dockerfiles.lineage(STAGES, name) for one in stage.all(word)]


def is_sent(path):
    """Whether .dockerignore lets ``path`` into the build, as Docker reads it: its last line."""
    sent = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!")
        parts = path.split("/")
        heads = ["/".join(parts[: n + 1]) for n in range(len(parts))]
        tail = pattern.removeprefix("**/")
        if any(fnmatch.fnmatch(head, pattern) for head in heads) or (
            tail != pattern and any(fnmatch.fnmatch(part, tail) for part in parts)
        ):
            sent = line.startswith("!")
    return sent


def copied():
    """What the build takes from the checkout."""
    for stage in STAGES.values():
        for one in stage.all("COPY"):
            if one.option("from") is None:
                yield from one.words[:-1]


def test_the_default_image_is_the_pipeline():
    assert [name for name in STAGES if name in IMAGES][-1] == list(STAGES)[-1] == "pipeline"


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_runs_as_a_user_that_kubernetes_can_tell_from_root(name):
    assert STAGES[name].all("USER")[-1].text == "1000:1000"


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_hands_on_signals_and_says_what_it_does(name):
    assert of(name, "ENTRYPOINT")[-1].words == ["tini", "--"]
    assert of(name, "CMD")


@pytest.mark.parametrize("name", ["serve", "mlflow"])
def test_a_server_says_whether_it_is_well_at_its_own_port(name):
    (port,) = STAGES[name].all("EXPOSE")
    assert f":{port.text}/" in STAGES[name].all("HEALTHCHECK")[-1].text


def test_what_is_copied_from_other_stages_comes_from_earlier_ones():
    names = list(STAGES)
    for name, stage in STAGES.items():
        for one in stage.all("COPY"):
            if origin := one.option("from"):
                assert names.index(origin) < names.index(name)


def test_what_is_copied_is_there_and_sent_to_the_build():
    sources = list(copied())
    assert "src" in sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert is_sent(source), source


@pytest.mark.parametrize(
    "path",
    [
        *(
            ".env",
            "docker/.env",
            ".git/config",
            ".venv/bin/python",
            ".musicrec/pg/data",
            "outputs/a",
        ),
        *("src/musicrec/__pycache__/a.pyc", "tests/conftest.py", "docker/compose.yaml", "model.pt"),
    ],
)
def test_nothing_else_is_sent_to_the_build(path):
    assert not is_sent(path)


def test_every_package_is_pinned_and_none_is_built_but_the_one_without_a_wheel():
    installs = [
        one.text for s in STAGES.values() for one in s.all("RUN") if "pip install" in one.text
    ]
    assert len(installs) == 3
    for text in installs:
        if "--no-deps ." in text:
            continue
        assert "--only-binary=:all:" in text
        assert set(re.findall(r"--no-binary=(\S+)", text)) <= {"antlr4-python3-runtime"}
        assert "--constraint constraints.txt" in text or "mlflow-requirements.txt" in text
    pins = (ROOT / "docker" / "mlflow-requirements.txt").read_text().splitlines()
    assert all("==" in pin for pin in pins if pin and not pin.startswith("#"))


def test_our_code_comes_after_the_packages_so_that_a_change_of_it_keeps_their_layer():
    words = [(one.word, one.text) for one in STAGES["packages"].instructions]
    install = next(
        n for n, (_, text) in enumerate(words) if "--requirement requirements.txt" in text
    )
    code = next(n for n, (word, text) in enumerate(words) if word == "COPY" and "src" in text)
    assert install < code


def test_no_secret_is_an_argument_or_in_the_environment_of_an_image():
    for stage in STAGES.values():
        for one in [*stage.all("ARG"), *stage.all("ENV")]:
            assert not re.search("PASSWORD|SECRET|TOKEN|KEY", one.text)


@pytest.mark.parametrize("name", IMAGES)
def test_a_musicrec_command_of_an_image_composes(name):
    program, *words = of(name, "CMD")[-1].words
    if program == "musicrec":
        assert compose(VERBS[words[0]].script, words[1:])


def listed(*extras):
    done = subprocess.run(
        [sys.executable, REQUIREMENTS, ROOT / "pyproject.toml", " ".join(extras)],
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout.split("\n")[:-1], done.stderr


def test_the_requirements_are_the_project_s_and_those_of_its_extras():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    _, lines, _ = listed("serve")
    own = project["dependencies"]
    assert lines[: len(own)] == own
    extras = project["optional-dependencies"]
    expected = [one for one in extras["serve"] + extras["features"] if "musicrec[" not in one]
    assert sorted(lines[len(own) :]) == sorted(expected)


def test_an_extra_that_there_is_not_stops_the_build():
    code, _, said = listed("serve", "gpu")
    assert code == 1
    assert "no extra gpu" in said


def test_the_extras_of_the_image_are_the_project_s():
    (extras,) = [one.words[0] for one in STAGES["packages"].all("ARG") if "EXTRAS" in one.text]
    code, lines, _ = listed(*extras.removeprefix("EXTRAS=").split())
    assert code == 0
    assert any(line.startswith("mlflow-skinny") for line in lines)
