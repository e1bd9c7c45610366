"""compose.yaml fits its schema and what the images and the project hold.

``compose-spec.json`` is https://github.com/compose-spec/compose-spec's schema, under Apache-2.0.
"""

from __future__ import annotations

import json
import re
import shlex

import jsonschema
import pytest
import yaml

import dockerfiles
from commands import ROOT
from musicrec.cli import dotenv, schedule
from musicrec.cli.compose import compose
from musicrec.cli.console import VERBS

DOCKER = ROOT / "docker"
FILES = ("compose.yaml", "compose.cuda.yaml")
TEXT = (DOCKER / "compose.yaml").read_text()
FILE = yaml.safe_load(TEXT)
SERVICES = FILE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
STAGES = dockerfiles.read(DOCKER / "Dockerfile")
EXAMPLE = dotenv.read(DOCKER / ".env.example")

#: ``${NAME}`` with what follows it, as compose replaces it; ``$$`` is a dollar for the container.
VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)(?::?([-?])([^}]*))?\}")


def replaced(value):
    """With what compose would put there, where only the passwords are set."""
    return VARIABLE.sub(lambda m: "password" if m[2] == "?" else m[3], value)


@pytest.mark.parametrize("name", FILES)
def test_the_file_fits_the_schema_of_compose(name):
    schema = json.loads((ROOT / "tests" / "unit" / "docker" / "compose-spec.json").read_text())
    content = yaml.safe_load((DOCKER / name).read_text())
    jsonschema.Draft202012Validator(schema).validate(content)


def test_the_services_are_those_a_team_needs():
    assert set(SERVICES) == {
        *("postgres", "redis", "music-rec-mlpipeline", "serve"),
        *("scheduler", "tensorboard", "mlflow"),
    }


def test_an_override_changes_only_services_that_there_are():
    assert set(yaml.safe_load((DOCKER / "compose.cuda.yaml").read_text())["services"]) <= set(OURS)


def test_the_example_tells_of_every_variable_and_of_no_other():
    asked = {match[1] for match in VARIABLE.finditer(TEXT)}
    assert set(EXAMPLE) == asked | {"COMPOSE_PROFILES"}  # compose's own


def test_what_the_example_gives_is_what_compose_would_take_without_it():
    """So that a line left out changes nothing."""
    for match in VARIABLE.finditer(TEXT):
        if match[2] == "-":
            assert EXAMPLE[match[1]] == match[3], match[1]


def test_passwords_have_no_default_and_the_example_none_either():
    required = {match[1] for match in VARIABLE.finditer(TEXT) if match[2] == "?"}
    assert required == {"POSTGRES_PASSWORD", "REDIS_PASSWORD"}
    secrets = [name for name in EXAMPLE if re.search("PASSWORD|KEY", name)]
    assert len(secrets) == 5
    assert not any(EXAMPLE[name] for name in secrets)


def test_no_command_holds_a_secret():
    for name, service in SERVICES.items():
        said = json.dumps([service.get("command"), service["healthcheck"], service.get("build")])
        assert not re.search(r"(?<!\$)\$\{?\w*(PASSWORD|KEY|AUTH)", said), name


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_says_whether_it_is_well_and_starts_again(name):
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")


@pytest.mark.parametrize("name", OURS)
def test_a_service_of_ours_may_do_nothing_special(name):
    assert OURS[name]["cap_drop"] == ["ALL"]
    assert OURS[name]["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", OURS)
def test_a_service_of_ours_is_built_from_a_stage_that_there_is(name):
    build = OURS[name]["build"]
    assert (DOCKER / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).is_file()
    stages = dockerfiles.lineage(STAGES, build["target"])
    every = dockerfiles.lineage(STAGES, "packages")
    known = {one.words[0].partition("=")[0] for s in [*stages, *every] for one in s.all("ARG")}
    assert set(build["args"]) <= known


def test_one_image_is_built_from_one_stage():
    targets = {}
    for service in OURS.values():
        assert (
            targets.setdefault(service["image"], service["build"]["target"])
            == (service["build"]["target"])
        )


@pytest.mark.parametrize("name", SERVICES)
def test_volumes_and_networks_are_declared(name):
    service = SERVICES[name]
    assert {mount.split(":")[0] for mount in service.get("volumes", [])} <= set(FILE["volumes"])
    assert set(service["networks"]) <= set(FILE["networks"])


@pytest.mark.parametrize("name", OURS)
def test_a_volume_lies_where_the_image_gives_its_user_a_folder(name):
    stages = dockerfiles.lineage(STAGES, OURS[name]["build"]["target"])
    made = [one.text for stage in stages for one in stage.all("RUN") if "--owner=1000" in one.text]
    for mount in OURS[name].get("volumes", []):
        folder = mount.split(":")[1]
        assert any(folder in shlex.split(text.split("&&")[0]) for text in made), folder


def test_whoever_names_a_server_is_on_a_network_with_it():
    for name, service in SERVICES.items():
        environment = json.dumps(service.get("environment", {}))
        test = json.dumps(service["healthcheck"]["test"])
        for other in ("postgres", "redis", "mlflow"):
            if re.search(rf"(@|//){other}:", environment + test) and other != name:
                shared = set(service["networks"]) & set(SERVICES[other]["networks"])
                assert shared, (name, other)


def test_nobody_outside_reaches_the_databases():
    assert FILE["networks"]["data"]["internal"]
    for name in ("postgres", "redis"):
        assert SERVICES[name]["networks"] == ["data"]
        assert "ports" not in SERVICES[name]


def test_ports_are_published_to_this_machine_alone_unless_told_otherwise():
    published = [
        replaced(port) for service in SERVICES.values() for port in service.get("ports", [])
    ]
    assert published == ["127.0.0.1:8000:8000", "127.0.0.1:6006:6006", "127.0.0.1:5000:5000"]


@pytest.mark.parametrize("name", OURS)
def test_a_command_of_ours_is_one_that_there_is(name):
    """Of compose, else of the image; ``musicrec``'s are composed with their settings."""
    stage = STAGES[OURS[name]["build"]["target"]]
    words = [replaced(word) for word in OURS[name].get("command") or stage.all("CMD")[-1].words]
    if words[0] != "musicrec":
        assert words[0] in ("sleep", "tensorboard", "mlflow")
        return
    verb, *settings = words[1:]
    assert verb in VERBS
    if verb == "schedule":
        assert settings[0] == "follow"
        own, others = schedule._split(settings[1:])
        assert schedule.block(own["dataset"], ".env", schedule._by_job(others))
    else:
        assert compose(VERBS[verb].script, settings)


def test_a_service_is_waited_for_only_where_it_can_be_well():
    for service in OURS.values():
        for other, how in service.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}
            assert not SERVICES[other].get("profiles")
