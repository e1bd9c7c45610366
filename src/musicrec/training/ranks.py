"""Several processes that train as one, whoever started them.

Lightning's own launcher starts the others from the first, each with the first's command line;
torchrun and SLURM's srun start all of them. Within ``Ranks`` there is no difference: they have
met, and rank 0 does alone what must be done once.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from subprocess import Popen
from types import TracebackType
from typing import Any, Self, TypeVar

import torch.distributed as dist
from pytorch_lightning import Trainer
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher

from musicrec.errors import ConfigError, MusicrecError
from musicrec.training.launch import num_launched

T = TypeVar("T")

#: How long the others wait while rank 0 imports or judges; a step that takes longer than the
#: strategy's ``timeout``, half an hour, is an error.
PATIENCE = timedelta(days=30)

_LOST = re.compile("connection (closed|reset)|broken pipe", re.IGNORECASE)


class LedAway(SystemExit):
    """Ends a rank that only follows; why, rank 0 says.

    The status is 0: Lightning kills the first process when another ends with any other, and it
    may not have said it yet.
    """


class Ranks:
    """The processes that train together, this one among them, within a ``with`` block.

    Args:
        meeting: a trainer like the one that will train; its strategy says how many processes
            there are, starts or awaits them, and connects them. With one process nothing happens.

    Raises:
        ConfigError: torchrun or SLURM started another number of processes than will train.

    Attributes:
        number: this process's rank, 0 to ``world_size - 1``.
        world_size: how many there are, over all nodes.
    """

    def __init__(self, meeting: Trainer) -> None:
        self.number = 0
        self.world_size = meeting.world_size
        self._meeting = meeting
        self._children: list[Popen[bytes]] = []
        self._is_interrupted = False
        self._is_over = threading.Event()
        _check_number(meeting.num_devices, meeting.num_nodes)

    @property
    def is_first(self) -> bool:
        return self.number == 0

    def first(self, work: Callable[[], T]) -> T:
        """What ``work`` gives on rank 0, on every rank; the others wait for it.

        Args:
            work: gives something that can be pickled.

        Raises:
            LedAway: on the other ranks, where it failed on rank 0, which raises what it raised.
        """
        if self.world_size == 1:
            return work()
        if not self.is_first:
            return self._received()
        try:
            result = work()
        except BaseException:
            self._send(None, is_done=False)
            raise
        self._send(result, is_done=True)
        return result

    def everywhere(self, work: Callable[[], T]) -> T:
        """``work`` on every rank; what a person can mend on any of them, rank 0 raises."""
        if self.world_size == 1:
            return work()
        result, error = None, None
        try:
            result = work()
        except MusicrecError as raised:
            error = raised
        errors: list[MusicrecError | None] = [None] * self.world_size
        dist.all_gather_object(errors, error, group=self._group)
        for failed in filter(None, errors):
            raise failed if self.is_first else LedAway
        return result  # type: ignore[return-value]

    def take_in(self, trainer: Trainer) -> Trainer:
        """A trainer that will train here, told which processes it stops when it is stopped."""
        if self.world_size > 1:
            _launcher(trainer).procs = self._children
        return trainer

    def __enter__(self) -> Self:
        if self.world_size > 1:
            try:
                self._meet()
            except BaseException:
                self._end_children()
                raise
        return self

    def _meet(self) -> None:
        launcher, strategy = _launcher(self._meeting), self._meeting.strategy
        try:
            launcher.launch(strategy.setup_environment, trainer=self._meeting)
        finally:
            # Lightning kills this process, which has said nothing yet, within seconds of the end
            # of one in its list.
            self._children, launcher.procs[:] = [*launcher.procs], []
        if self._children:
            threading.Thread(target=self._watch, daemon=True).start()
        self.number = self._meeting.global_rank
        self._group = dist.new_group(backend="gloo", timeout=PATIENCE)
        if not self.is_first:
            # A terminal's Ctrl-C reaches everyone. Rank 0 stops the training and ends the others;
            # if they stopped by themselves, it would lose them in the middle of a step.
            signal.signal(signal.SIGINT, self._note_interrupt)

    def _watch(self) -> None:
        """End this process if another has ended badly and this one has not noticed.

        Where gloo connects them it does within seconds, and reports as ``__exit__`` says.
        """
        while not self._is_over.wait(5):
            if self._who_ended() and not self._is_over.wait(60):
                print(f"error: {self._lost()}", file=sys.stderr, flush=True)
                self._end_children()
                os._exit(2)

    def _note_interrupt(self, *_: object) -> None:
        self._is_interrupted = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_over.set()
        if error is None:
            if self.world_size > 1:
                dist.destroy_process_group()  # gloo's threads may abort a process that just exits
            for child in self._children:
                child.wait()
            return
        is_lost = self.world_size > 1 and _LOST.search(str(error)) is not None
        if not self.is_first:
            if is_lost or self._is_interrupted or isinstance(error, MusicrecError):
                raise LedAway from error
            return
        lost = self._lost()
        self._end_children()
        if is_lost and isinstance(error, RuntimeError):
            raise MusicrecError(lost) from error

    def _lost(self) -> str:
        return (
            f"{self._who_ended() or 'another rank'} ended in the middle of the training; go on "
            "with the same command, ckpt_path=last and the hydra.run.dir of this run"
        )

    def _who_ended(self) -> str | None:
        for number, child in enumerate(self._children, start=1):
            if child.poll():
                return f"rank {number} (exit status {child.returncode})"
        return None

    def _end_children(self) -> None:
        for child in self._children:
            child.kill()
            child.wait()

    def _send(self, result: object, *, is_done: bool) -> None:
        dist.broadcast_object_list([is_done, result], src=0, group=self._group)

    def _received(self) -> Any:
        message: list[Any] = [None, None]
        dist.broadcast_object_list(message, src=0, group=self._group)
        is_done, result = message
        if not is_done:
            raise LedAway
        return result


def _launcher(trainer: Trainer) -> _SubprocessScriptLauncher:
    launcher = trainer.strategy.launcher
    if not isinstance(launcher, _SubprocessScriptLauncher):
        raise ConfigError(
            "trainer.strategy must be one whose processes run this command, such as ddp; "
            f"{type(trainer.strategy).__name__} starts them otherwise: say trainer=ddp"
        )
    return launcher


def _check_number(num_devices: int, num_nodes: int) -> None:
    launched, planned = num_launched(), num_devices * num_nodes
    # One process in a job of many tasks trains alone: under SLURM that may be meant.
    if launched is None or launched[1] == planned or (launched[0] == "SLURM" and planned == 1):
        return
    who, number = launched
    raise ConfigError(
        f"{who} started {number} processes, but trainer.devices={num_devices} and "
        f"trainer.num_nodes={num_nodes} make {planned}; say trainer=ddp, the processes per node as "
        "trainer.devices and the nodes as trainer.num_nodes"
    )
