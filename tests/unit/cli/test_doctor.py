"""The doctor finds what is broken, says the fix, shows no secret and changes nothing."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from packaging.requirements import Requirement

from musicrec.cli.doctor import command, machine, models, network, packages, servers
from musicrec.cli.doctor.findings import Asked, Finding, without_secrets
from musicrec.database import programs
from musicrec.interactions.catalogue import Catalogue
from musicrec.models.sasrec import SASRec
from musicrec.registry import bundle as bundles

KEY = "sk-test-0123456789abcdef"


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch, tmp_path):
    """A home that is not there yet, and no server or key in the environment."""
    for name in ("DATABASE_URL", "FEAST_REDIS_HOST", "SEQUENTIAL_MODEL_PATH", "MUSICREC_MODELS"):
        monkeypatch.delenv(name, raising=False)
    for provider in network.PROVIDERS.values():
        monkeypatch.delenv(provider.key, raising=False)
        monkeypatch.delenv(provider.base_url, raising=False)
    monkeypatch.setenv("MUSICREC_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    servers.found_postgres.cache_clear()
    servers.found_redis.cache_clear()


@pytest.fixture
def bundle() -> bundles.Bundle:
    torch.manual_seed(0)
    architecture = {"catalogue_size": 3, "max_length": 5, "dim": 8, "blocks": 1, "heads": 2}
    return bundles.new_bundle(
        SASRec(**architecture, dropout=0.0),
        Catalogue(["a", "b", "c"], ["A", "B", "C"], ["x", "y", "z"], np.array([3, 2, 1])),
        architecture=architecture,
        config={},
        metrics={"protocol": {"seen": "keep"}},
        data_fingerprint="f00d",
    )


def run(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["doctor", *arguments])
    try:
        command.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_to_look_makes_nothing(tmp_path):
    checks = {k: v for k, v in command.CHECKS.items() if k != "ports"}
    findings = list(command.examine(Asked(), checks))
    assert [each for each in findings if each.said.startswith("the check itself")] == []
    assert list(tmp_path.iterdir()) == []


def test_an_embedded_server_that_sleeps_is_well_and_its_datasets_unseen():
    (postgres,) = servers.postgres(Asked())
    assert (postgres.state, "not running" in postgres.said) == ("ok", True)
    (unseen,) = servers.datasets(Asked())
    assert (unseen.state, unseen.fix) == ("not set", "python scripts/doctor.py start=true")


def test_data_of_another_postgres_than_the_installed_is_broken(tmp_path):
    data = tmp_path / "home" / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("9\n")
    (finding,) = servers.postgres(Asked())
    assert finding.state == "broken"
    assert f"version 9, the installed server is {programs.major_version()}" in finding.said


def test_a_postgres_that_is_not_there_is_broken_and_its_password_untold(monkeypatch, capsys):
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:hunter22@127.0.0.1:1/db")
    monkeypatch.setattr(command, "CHECKS", {"Postgres": "servers.postgres"})
    assert run(monkeypatch) == 1
    said = capsys.readouterr().out
    assert "no connection to Postgres at 127.0.0.1:1/db" in said.replace("\n", " ")
    assert "Postgres (broken): correct DATABASE_URL, or unset it" in said
    assert "hunter22" not in said


def test_a_redis_that_is_not_there_is_broken(monkeypatch):
    monkeypatch.setenv("FEAST_REDIS_HOST", "127.0.0.1")
    monkeypatch.setenv("FEAST_REDIS_PORT", "1")
    (finding,) = servers.redis(Asked())
    assert (finding.state, "FEAST_REDIS_HOST" in finding.fix) == ("broken", True)


def test_a_good_model_is_ok(bundle, tmp_path):
    bundles.save(bundle, tmp_path / "model.pt")
    (finding,) = models.model(Asked())
    assert (finding.state, "3 tracks" in finding.said) == ("ok", True)


def test_a_torn_model_is_broken_with_the_way_out(bundle, tmp_path):
    bundles.save(bundle, tmp_path / "model.pt")
    whole = (tmp_path / "model.pt").read_bytes()
    (tmp_path / "model.pt").write_bytes(whole[: len(whole) // 2])
    (finding,) = models.model(Asked())
    assert finding.state == "broken"
    assert "torn" in finding.said
    assert finding.fix == "copy it again or train it again"


def test_a_model_that_diverged_is_broken(bundle, tmp_path):
    with torch.no_grad():
        bundle.model.item_embedding.weight.fill_(float("nan"))
    bundles.save(bundle, tmp_path / "model.pt")
    (finding,) = models.model(Asked())
    assert (finding.state, "does not answer" in finding.said) == ("broken", True)


def test_a_model_that_is_named_and_missing_is_broken_and_one_that_is_not_named_is_not():
    (unnamed,) = models.model(Asked())
    (named,) = models.model(Asked(bundle="old/model.pt"))
    assert (unnamed.state, named.state) == ("not set", "broken")
    assert named.fix.startswith("make train")


def test_a_key_is_told_of_and_never_shown(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    other, ours = network.llm(Asked())
    assert (other.state, ours.state) == ("not set", "ok")
    assert KEY not in f"{other}{ours}"


@contextmanager
def answering(reply: bytes | None) -> Iterator[str]:
    """A server that gives every caller one reply, or with None lets them wait."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        callers: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    caller, _ = server.accept()
                except OSError:
                    return
                callers.append(caller)
                if reply is not None:
                    caller.recv(65536)
                    caller.sendall(reply)
                    caller.close()

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        for caller in callers:
            caller.close()


@pytest.mark.parametrize(
    ("reply", "state", "said"),
    [
        (None, "broken", "no answer from"),
        (b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n", "broken", "refuses the key (HTTP 401)"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "ok", "answered HTTP 200"),
        (b"HTTP/1.1 529 Busy\r\nContent-Length: 0\r\n\r\n", "warning", "HTTP 529"),
    ],
)
def test_an_llm_is_asked_when_that_is_wanted(monkeypatch, reply, state, said):
    monkeypatch.setattr(network, "PROVIDER_SECONDS", 0.3)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    with answering(reply) as place:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", place)
        finding, _ = network.llm(Asked(online=True))
    assert (finding.state, said in finding.said) == (state, True), finding
    assert KEY not in str(finding)


def test_a_key_follows_no_redirect(monkeypatch):
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as elsewhere:
        reply = f"HTTP/1.1 302 Go\r\nLocation: {elsewhere}\r\nContent-Length: 0\r\n\r\n".encode()
        with answering(reply) as place:
            status, _ = network.fetch(place, 2, {"x-api-key": KEY})
    assert status == 302


def test_a_tracking_server_that_is_down_is_broken(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hunter22@127.0.0.1:1")
    (finding,) = command.examine(Asked(), {"tracking": "network.tracking"})
    assert (finding.state, "hunter22" in str(finding)) == ("broken", False)


def test_a_port_that_another_has_taken_is_a_warning(monkeypatch):
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi") as place:
        port = int(place.rpartition(":")[2])
        monkeypatch.setattr(network, "_PORTS", {port: ("the service", "/", "musicrec", "port=1")})
        (finding,) = network.ports(Asked())
    assert finding.state == "warning"


def test_a_package_out_of_its_range_is_named():
    assert packages.trouble(Requirement("numpy>=2.0")) is None
    assert "is not <1" in str(packages.trouble(Requirement("numpy<1")))
    assert packages.trouble(Requirement("no-such-package")) == "no-such-package is missing"


def test_a_missing_requirement_is_broken_and_a_missing_extra_is_not(monkeypatch):
    gone = Requirement("no-such-package")
    monkeypatch.setattr(packages, "declared", lambda: ([], {"ann": [gone]}))
    _, extra = packages.packages(Asked())
    assert extra.state == "not set"
    monkeypatch.setattr(packages, "declared", lambda: ([gone], {}))
    (base,) = packages.packages(Asked())
    assert (base.state, base.said) == ("broken", "no-such-package is missing")


def test_every_declared_extra_says_what_it_is_for():
    _, extras = packages.declared()
    assert set(extras) == set(packages.PURPOSES)


def test_more_threads_than_cores_are_a_warning(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "4096")
    (finding,) = machine.threads(Asked())
    assert (finding.state, finding.fix.startswith("export OMP_NUM_THREADS=")) == ("warning", True)


def test_little_room_is_broken(monkeypatch):
    monkeypatch.setattr(machine, "LITTLE_GB", 1e9)
    (finding,) = machine.disk(Asked())
    assert finding.state == "broken"


def test_a_home_that_is_a_file_is_broken(tmp_path):
    (tmp_path / "home").write_text("")
    (finding,) = machine.home_folder(Asked())
    assert (finding.state, "is no folder" in finding.said) == ("broken", True)


def test_a_check_that_fails_stops_no_other(monkeypatch):
    monkeypatch.setattr(machine, "disk", lambda _: 1 / 0)
    broken, well = command.examine(Asked(), {"disk": "machine.disk", "home": "machine.home_folder"})
    assert "the check itself failed: ZeroDivisionError" in broken.said
    assert well.state == "ok"


def test_a_package_that_cannot_be_imported_is_a_finding(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (finding,) = command.examine(Asked(), {"torch": "machine.torch_build"})
    assert (finding.state, "pip install" in finding.fix) == ("broken", True)


def test_json_holds_every_finding_and_nothing_else(monkeypatch, capsys):
    monkeypatch.setattr(
        command, "examine", lambda *_: iter([Finding("disk", "broken", "full", "make room")])
    )
    assert run(monkeypatch, "--json") == 1
    report = json.loads(capsys.readouterr().out)
    assert report["states"] == {"ok": 0, "warning": 0, "broken": 1, "not set": 0}
    (check,) = report["checks"]
    assert check == {"check": "disk", "state": "broken", "said": "full", "fix": "make room"}


def test_a_misspelt_setting_names_the_nearest(monkeypatch, capsys):
    assert run(monkeypatch, "datset=mine") == 2
    assert "did you mean 'dataset'?" in capsys.readouterr().err


def test_what_others_quote_of_a_secret_is_left_out(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    said = without_secrets(f"refused {KEY} at http://me:hunter22@host/db")
    assert said == "refused *** at http://***@host/db"
