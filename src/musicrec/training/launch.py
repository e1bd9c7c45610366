"""What a launcher tells the processes it starts, before Lightning has introduced them."""

from __future__ import annotations

import os

#: torchrun's and Lightning's numbers, then srun's; the first process has none or zeros.
_NUMBERS = ("RANK", "NODE_RANK", "LOCAL_RANK", "SLURM_PROCID")

#: torchrun sets it, and nothing else does.
_TORCHRUN = "TORCHELASTIC_RUN_ID"


def is_first() -> bool:
    """Whether this is rank 0, or was started by no launcher at all.

    srun numbers the tasks of unrelated trainings too; whether they train together is the
    settings' say (``trains_together``).
    """
    return all(os.environ.get(name, "0") == "0" for name in _NUMBERS)


def trains_together(devices: object, num_nodes: object) -> bool:
    """Whether a trainer with these settings may have more than one process.

    Those that torchrun starts belong together whatever the settings, if only to be refused.
    """
    return (str(devices), str(num_nodes)) != ("1", "1") or _TORCHRUN in os.environ


def num_launched() -> tuple[str, int] | None:
    """Who started this process and how many others with it; None without a launcher of its own."""
    if _TORCHRUN in os.environ:
        return "torchrun", int(os.environ["WORLD_SIZE"])
    if "SLURM_NTASKS" in os.environ and "SLURM_PROCID" in os.environ:
        return "SLURM", int(os.environ["SLURM_NTASKS"])
    return None
