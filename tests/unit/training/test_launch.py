"""What a launcher's environment says of the processes it started."""

from __future__ import annotations

import pytest

from musicrec.training.launch import is_first, num_launched, trains_together

LAUNCHERS = {
    "by hand": {},
    "torchrun": {"TORCHELASTIC_RUN_ID": "none", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"},
    "lightning": {"NODE_RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"},
    "srun": {"SLURM_PROCID": "0", "SLURM_NTASKS": "2"},
}


@pytest.fixture
def started(monkeypatch):
    """Puts this process into the environment that a launcher gives."""

    def start(launcher: str, **changed: str) -> None:
        for name in {name for variables in LAUNCHERS.values() for name in variables}:
            monkeypatch.delenv(name, raising=False)
        for name, value in (LAUNCHERS[launcher] | changed).items():
            monkeypatch.setenv(name, value)

    return start


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_the_first_process_of_any_launcher_is_the_first(started, launcher):
    started(launcher)
    assert is_first()


@pytest.mark.parametrize(
    ("launcher", "number"),
    [
        ("torchrun", {"RANK": "1", "LOCAL_RANK": "1"}),
        ("torchrun", {"RANK": "2"}),  # the first of a second node
        ("lightning", {"LOCAL_RANK": "1"}),
        ("lightning", {"NODE_RANK": "1"}),
        ("srun", {"SLURM_PROCID": "1"}),
    ],
)
def test_the_others_are_not(started, launcher, number):
    started(launcher, **number)
    assert not is_first()


@pytest.mark.parametrize(
    ("launcher", "said"),
    [("by hand", None), ("lightning", None), ("torchrun", ("torchrun", 2)), ("srun", ("SLURM", 2))],
)
def test_a_launcher_says_how_many_it_started(started, launcher, said):
    started(launcher)
    assert num_launched() == said


def test_an_allocation_without_srun_started_one_process(started):
    # In a SLURM batch script itself there are tasks, but none has a number.
    started("by hand", SLURM_NTASKS="8")
    assert num_launched() is None


@pytest.mark.parametrize(
    ("devices", "num_nodes", "together"),
    [(1, 1, False), ("1", 1, False), (2, 1, True), (1, 2, True), ("auto", 1, True), (-1, 1, True)],
)
def test_more_than_one_device_trains_together(started, devices, num_nodes, together):
    started("by hand")
    assert trains_together(devices, num_nodes) is together


def test_what_torchrun_started_belongs_together_whatever_the_settings(started):
    started("torchrun", RANK="1", LOCAL_RANK="1")
    assert trains_together(1, 1)
