"""One process among those that train together; real ones meet in tests/integration/test_ddp.py."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from pytorch_lightning import Trainer

from musicrec.errors import ConfigError
from musicrec.training import ranks
from musicrec.training.ranks import Ranks


def planned(num_devices: int, num_nodes: int = 1) -> SimpleNamespace:
    """A trainer as far as the number of its processes goes."""
    return SimpleNamespace(
        num_devices=num_devices, num_nodes=num_nodes, world_size=num_devices * num_nodes
    )


@pytest.fixture
def launched(monkeypatch):
    return lambda answer: monkeypatch.setattr(ranks, "num_launched", lambda: answer)


def test_a_process_alone_does_everything_itself():
    alone = Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False)
    with Ranks(alone) as one:
        assert one.is_first
        assert one.first(lambda: "done") == "done"
        assert one.everywhere(lambda: "done") == "done"
        assert one.take_in(alone) is alone


def test_an_error_of_a_process_alone_stays_what_it_was(launched):
    launched(None)
    with pytest.raises(ZeroDivisionError), Ranks(planned(1)) as one:
        one.first(lambda: 1 // 0)


@pytest.mark.parametrize(
    ("who", "number", "devices", "nodes"),
    [("torchrun", 2, 1, 1), ("torchrun", 2, 3, 1), ("torchrun", 4, 4, 2), ("SLURM", 8, 4, 1)],
)
def test_another_number_of_processes_than_planned_is_refused(launched, who, number, devices, nodes):
    launched((who, number))
    with pytest.raises(ConfigError, match=rf"{who} started {number} .*devices={devices} .*make"):
        Ranks(planned(devices, nodes))


@pytest.mark.parametrize(
    ("answer", "devices", "nodes"),
    [
        (None, 2, 1),  # Lightning starts the others
        (("torchrun", 8), 4, 2),
        (("SLURM", 8), 4, 2),
        (("SLURM", 8), 1, 1),  # one training in each task
    ],
)
def test_the_planned_number_is_not(launched, answer, devices, nodes):
    launched(answer)
    Ranks(planned(devices, nodes))


def test_a_strategy_that_starts_its_processes_otherwise_is_refused_by_name():
    spawning = Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp_spawn",
        logger=False,
        enable_checkpointing=False,
    )
    with pytest.raises(ConfigError, match=r"DDPStrategy starts them otherwise: say trainer=ddp"):
        Ranks(spawning).__enter__()
