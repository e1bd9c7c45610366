"""The service answers with the champion, whoever that is: it follows the registry's link."""

from __future__ import annotations

import pytest

from bundles import small_bundle
from drills import eventually, serving
from musicrec.registry import bundle as bundles
from musicrec.registry.changes import promote, register, rollback
from musicrec.registry.versions import Model

pytestmark = pytest.mark.slow

TRACKS = "abcdefghij"
BODY = {"history": ["a", "c"], "k": 5}


def make_champion(model: Model, seed: int, folder) -> str:
    """Another version, promoted; what answers call it."""
    path = folder / f"{seed}.pt"
    bundles.save(small_bundle(TRACKS, seed=seed), path)
    before = model.aliased("champion")
    promote(model, register(model, path, why="a drill"), instead_of=before, why="a drill")
    return bundles.load(path).version


def test_a_promotion_and_a_rollback_reach_the_running_service(musicrec_home, tmp_path):
    model = Model("drilled")
    first = make_champion(model, 1, tmp_path)
    settings = ("dataset=null", "bundle=models:/drilled@champion", "watch_seconds=0.1")
    with serving(*settings, cwd=tmp_path, until="/readyz") as service:

        def answers() -> str:
            reply = service.ask("POST", "/recommend", BODY)
            assert reply.status == 200, reply
            return reply.body["model_version"]

        assert answers() == first
        second = make_champion(model, 2, tmp_path)
        eventually(lambda: answers() == second)
        rollback(model, "a drill")
        eventually(lambda: answers() == first)
