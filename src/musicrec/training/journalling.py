"""Lightning's numbers, into the run's journal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from musicrec.registry.journal import Journal


class JournalLogger(Logger):
    """Writes curves into a journal.

    A resumed run trains some steps a second time, to the same numbers: what the journal holds of
    a metric up to a step is not told again.
    """

    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self.journal = journal
        self._told = {name: journal.told.last_step(name) for name in journal.told.curves}

    @property
    def name(self) -> str:
        return "journal"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: the journal was told all settings when the run began."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        assert step is not None
        news = {name: value for name, value in metrics.items() if step > self._told.get(name, -1)}
        if news:
            self.journal.metrics(step, news)
