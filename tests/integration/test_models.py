"""What a person does with registered versions, on real listens in Postgres."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from bundles import bundle_of, saved
from commands import command, finished
from musicrec.cli.compose import compose
from musicrec.cli.models import models
from musicrec.database.home import home
from musicrec.errors import ConfigError
from musicrec.registry.versions import Model, resolve
from musicrec.sources import stream
from plays import Play, store
from snapshots import cycles

pytestmark = pytest.mark.slow

START = datetime(2024, 3, 1, tzinfo=UTC)
SLOW_OK = "policy.max_latency_ms=10000"


@pytest.fixture
def listens(dataset, tmp_path, monkeypatch):
    """A dataset, its snapshot, and an empty registry."""
    monkeypatch.setenv("MUSICREC_MODELS", str(tmp_path / "models"))
    plays = [
        Play(f"u{row}", f"t{item}", START + timedelta(minutes=place))
        for row, history in enumerate(cycles(30, 9, 24))
        for place, item in enumerate(history)
    ]
    store(dataset, plays, {f"t{item}": {} for item in range(1, 25)})
    return stream.snapshot(dataset, home() / "snapshots")


@pytest.fixture
def model(listens):
    return Model(listens.facts.dataset)


def do(verb, *settings):
    models(verb, compose("models", settings), settings)


def register(listens, path, **kind):
    do("register", f"bundle={saved(bundle_of(listens, **kind), path)}")


@pytest.fixture
def bad_and_good(listens, model, tmp_path):
    """Version 1 knows nothing and is champion, version 2 is good and challenger."""
    register(listens, tmp_path / "bad.pt", is_good=False)
    do("promote", SLOW_OK)
    register(listens, tmp_path / "good.pt")


def status_of(verb, *settings):
    with pytest.raises(SystemExit) as end:
        do(verb, *settings)
    return end.value.code


def test_a_good_challenger_is_promoted_and_a_bad_one_refused(bad_and_good, model, capsys):
    do("promote", SLOW_OK)
    assert model.linked("champion") == 2
    before = model.folder.joinpath("champion").readlink()
    assert status_of("promote", SLOW_OK, "version=1") == 3
    assert model.folder.joinpath("champion").readlink() == before
    assert "refused, and models:/" in capsys.readouterr().out
    assert model.history()[-1]["what"] == "refused"


def test_the_door_ends_with_3_where_a_promotion_was_refused(bad_and_good, model, tmp_path):
    policy = "policy.max_latency_ms=1e-6"
    code, out, err = finished(command("models", "promote", policy, cwd=tmp_path))
    assert code == 3, err
    assert "latency: a single answer takes" in out
    assert model.linked("champion") == 1


def test_a_person_may_force_with_a_reason(bad_and_good, model):
    too_slow = "policy.max_latency_ms=1e-6"
    with pytest.raises(ConfigError, match="force=true needs a reason="):
        do("promote", "force=true", too_slow)
    do("promote", "force=true", too_slow, "reason=the evening is near")
    assert model.linked("champion") == 2
    event = model.history()[-1]
    assert (event["forced"], event["why"]) == (True, "the evening is near")
    assert [check["is_passed"] for check in event["checks"]] == [True, False, True, True]


def test_a_model_that_answers_nothing_cannot_be_forced(bad_and_good, model):
    model.version(2).path.write_bytes(b"torn")
    assert status_of("promote", "force=true", "reason=I want it", SLOW_OK) == 3
    assert model.linked("champion") == 1


def test_one_that_trained_on_its_own_test_targets_is_refused(bad_and_good, listens, tmp_path):
    register(listens, tmp_path / "refit.pt", refit=True)
    assert status_of("promote", SLOW_OK) == 3
    assert "refit=true" in Model(listens.facts.dataset).history()[-1]["why"]


def test_a_rollback_is_one_command(bad_and_good, model, capsys):
    do("promote", SLOW_OK)
    do("rollback")
    assert model.linked("champion") == 1
    assert resolve(f"models:/{model.name}@champion").samefile(model.version(1).path)
    assert "is champion again instead of version 2" in capsys.readouterr().out


def test_two_versions_are_compared_on_the_same_targets(bad_and_good, tmp_path, capsys):
    do("compare", f"output={tmp_path}/compared.json")
    compared = json.loads((tmp_path / "compared.json").read_text())
    ndcg = compared["metrics"][0]
    assert (compared["versions"], compared["targets"]) == ([2, 1], 30)
    assert ndcg["difference"]["low"] > 0
    assert "difference with its 95 % interval" in capsys.readouterr().out


def test_the_card_tells_of_parts_once_the_data_were_looked_at(bad_and_good, model):
    card = model.version(2).folder / "card.md"
    assert "Not looked at yet" in card.read_text()
    do("card", "version=2")
    assert "| target's plays in training |" in card.read_text()


def test_the_list_names_every_version_with_its_alias(bad_and_good, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    do("list", f"output={tmp_path}/list.json")
    rows = json.loads((tmp_path / "list.json").read_text())["models"]
    assert [(row["version"], row["alias"]) for row in rows] == [(2, "challenger"), (1, "champion")]


def test_a_setting_that_a_verb_does_not_heed_is_refused():
    with pytest.raises(ConfigError, match=r"rollback does not heed force=; it has name, reason"):
        do("rollback", "force=true")


@pytest.mark.parametrize(
    ("verb", "said"), [(None, "say what to do"), ("promot", r"did you mean 'promote'\?")]
)
def test_a_verb_that_is_none_is_answered_with_those_there_are(verb, said):
    with pytest.raises(ConfigError, match=said + r".*list \| register \| promote"):
        do(verb)


def test_nothing_to_list_is_no_error(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MUSICREC_MODELS", str(tmp_path / "none"))
    do("list")
    assert "no model is registered in" in capsys.readouterr().out.replace("\n", " ")
