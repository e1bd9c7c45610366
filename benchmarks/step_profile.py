"""Where the time of a training step goes, by what the work is for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from pytorch_lightning import Callback, Trainer
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

from musicrec.models import attention, dropout

_PRODUCTS = {"mm", "bmm", "addmm", "addmm_", "baddbmm", "baddbmm_"}

#: Part of the name of an event that encloses the work, and what it is for; the innermost counts.
#: Lightning runs the whole step within the optimizer's, so that one is known by its kernel.
_PURPOSES = {
    "dropout mask": "dropout masks",
    "_BlockedAttention": "attention",
    "_ChunkedCrossEntropy": "scores and loss",
    "_fused_adamw": "embedding and optimizer",
    "embedding": "embedding and optimizer",
    "layer_norm": "layer norms",
    "LayerNorm": "layer norms",
}


class StepProfile(Callback):
    """Profiles ``steps`` training steps after ``warmup`` others.

    Steps are slower while they are watched: the shares are what to quote.
    """

    def __init__(self, warmup: int, steps: int) -> None:
        self.warmup, self.steps = warmup, steps
        self._profile = profile(activities=[ProfilerActivity.CPU])
        self._done = 0
        for module in (attention, dropout):
            module.kept = _named("dropout mask", dropout.kept)  # type: ignore[attr-defined]

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        self._done += 1
        if self._done == self.warmup:
            self._profile.start()
        elif self._done == self.warmup + self.steps:
            self._profile.stop()

    def shares(self) -> list[tuple[str, float]]:
        """Share of the CPU time of each purpose, the greatest first."""
        times: Counter[str] = Counter()
        for event in self._profile.events():
            times[_purpose(event)] += event.self_cpu_time_total
        total = sum(times.values())
        return [(purpose, time / total) for purpose, time in times.most_common()]

    def table(self) -> str:
        rows = [f"| {purpose} | {share:.1%} |" for purpose, share in self.shares()]
        return "\n".join(["| What | Share of a step |", "|---|---|", *rows])


def _named(name: str, function: Any) -> Any:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with record_function(name):
            return function(*args, **kwargs)

    return wrapped


def _purpose(event: FunctionEvent) -> str:
    is_product = event.name.removeprefix("aten::") in _PRODUCTS
    kind = "matrix products" if is_product else "the rest of it"
    for name in _enclosing(event):
        for mark, purpose in _PURPOSES.items():
            if mark in name:
                mixed = purpose in ("attention", "scores and loss")
                return f"{purpose}: {kind}" if mixed else purpose
    return "linear layers: matrix products" if is_product else "all else, mostly elementwise"


def _enclosing(event: FunctionEvent | None) -> Iterator[str]:
    while event is not None:
        yield event.name
        event = event.cpu_parent
