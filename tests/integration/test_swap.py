"""Another model takes the place of the one that answers, while callers never cease."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from drills import Callers, Reply, Service, bundle_of, eventually, serving
from musicrec.registry import bundle as bundles

pytestmark = pytest.mark.slow

TRACKS = [f"t{number}" for number in range(1, 201)]
WORKERS = 2
BODIES = [{"history": TRACKS[start : start + 7], "k": 5} for start in range(0, 60, 3)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("swap")


@pytest.fixture(scope="module")
def path(folder) -> Path:
    return folder / "model.pt"


@pytest.fixture(scope="module")
def service(folder, path) -> Iterator[Service]:
    """One that looks for changes all the time; there is no file as it starts."""
    settings = ("dataset=null", f"bundle={path}", f"workers={WORKERS}", "watch_seconds=0.1")
    with serving(*settings, cwd=folder, until="/livez") as service:
        yield service


@pytest.fixture(scope="module")
def red(service) -> Reply:
    """What ``/readyz`` says while there is no file."""
    eventually(lambda: service.facts("model missing"))
    return service.ask("GET", "/readyz")


@pytest.fixture
def running(service, red, path) -> str:
    """The model that all workers answer with as a test begins."""
    version = put(path, 0)
    eventually(lambda: set(versions(service)) == {version})
    return version


def put(path: Path, seed: int) -> str:
    """Another good model at the path; its version."""
    bundles.save(bundle_of(TRACKS, seed=seed, ranked=seed % 2 == 1), path)
    return bundles.load(path).version


def versions(service: Service) -> list[str | None]:
    """Of the models that answer several requests in a row: enough to meet every worker."""
    replies = [service.ask("POST", "/recommend", BODIES[0]) for _ in range(8)]
    return [reply.body["model_version"] if reply.status == 200 else None for reply in replies]


def loads(service: Service, outcome: str) -> float:
    """Files taken, or refused, by all workers."""
    lines = service.ask("GET", "/metrics").body.decode().splitlines()
    name = f'musicrec_model_loads_total{{outcome="{outcome}"}} '
    return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))


def edited(content: dict[str, Any], path: Path) -> None:
    """The parts of a bundle, written with a checksum that fits."""
    content.pop("checksum")
    content["checksum"] = bundles._checksum(content, path)
    torch.save(content, path)


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def one_bit_off(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def of_another_version(path: Path) -> None:
    edited(torch.load(path, weights_only=True) | {"format_version": 99}, path)


def of_nan(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    content["weights"]["item_embedding.weight"][3] = float("nan")
    edited(content, path)


def with_trees_that_cannot_be_read(path: Path) -> None:
    bundles.save(bundle_of(TRACKS, seed=9, ranked=True), path)
    content = torch.load(path, weights_only=True)
    content["ranker"]["text"] = content["ranker"]["text"][:200]
    edited(content, path)


def no_bundle(path: Path) -> None:
    torch.save({"weights": torch.zeros(3)}, path)


def test_without_a_model_it_is_not_ready_and_says_where_it_looked(red, path):
    assert red.status == 503
    assert str(path) in str(red.body)
    assert "make train" in str(red.body)


def test_a_good_model_is_swapped_in_without_one_failed_request(service, running, path):
    with Callers(service.port, BODIES) as callers:
        eventually(lambda: callers.versions[running] > 20)
        after = put(path, 1)
        eventually(lambda: set(versions(service)) == {after})
        enough = callers.versions[after] + 20
        eventually(lambda: callers.versions[after] > enough)
    assert not callers.failed, callers.failed[0]
    assert set(callers.versions) == {running, after}


@pytest.mark.parametrize(
    "spoil",
    [
        torn,
        empty,
        one_bit_off,
        of_another_version,
        of_nan,
        with_trees_that_cannot_be_read,
        no_bundle,
    ],
)
def test_a_bad_model_is_refused_once_and_the_old_one_goes_on(
    service, running, path, spoil: Callable[[Path], None], tmp_path
):
    bad = tmp_path / "model.pt"
    put(bad, 5)
    spoil(bad)
    before = loads(service, "refused"), len(service.facts("model refused"))
    with Callers(service.port, BODIES, pause=0.01) as callers:
        bad.replace(path)
        eventually(lambda: loads(service, "refused") == before[0] + WORKERS)
        time.sleep(0.3)  # several looks
    assert not callers.failed, callers.failed[0]
    assert set(callers.versions) == {running}
    assert loads(service, "refused") == before[0] + WORKERS
    lines = service.facts("model refused")[before[1] :]
    assert len(lines) == WORKERS
    assert all(str(path) in line["path"] and line["goes_on"] == running for line in lines)
    assert service.ask("GET", "/readyz").status == 200


def test_a_good_model_after_a_bad_one_is_swapped_in(service, running, path):
    refused = loads(service, "refused")
    torn(path)
    eventually(lambda: loads(service, "refused") == refused + WORKERS)
    after = put(path, 2)
    eventually(lambda: set(versions(service)) == {after})


def test_a_model_that_is_removed_goes_on(service, running, path):
    path.unlink()
    time.sleep(0.3)
    assert set(versions(service)) == {running}
    assert service.ask("GET", "/readyz").status == 200
