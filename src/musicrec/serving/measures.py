"""What the service counts and times, for Prometheus.

Where workers share a folder (``sharing``), every one writes its figures there and any of them
answers ``/metrics`` for all.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)

from musicrec.features.plan import State
from musicrec.serving.asking import Answer
from musicrec.serving.sharing import shared_folder

#: Upper bounds, seconds: fine around the aim of 50 ms and the budgets of 30 ms.
_SECONDS = (
    *(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05),
    *(0.075, 0.1, 0.2, 0.5, 1.0, 2.5),
)

#: Upper bounds, seconds: of a view that is computed daily, to one that is long forgotten.
_AGES = tuple(3600.0 * hours for hours in (1, 6, 12, 24, 36, 48, 72, 24 * 7, 24 * 30))

_STATES = {int(state): state.name.lower() for state in State}


class Measures:
    """The figures of one process; every name begins with ``musicrec_``."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "musicrec_requests",
            "Requests by route, method and HTTP status.",
            ["route", "method", "status"],
            registry=registry,
        )
        self._request_seconds = Histogram(
            "musicrec_request_seconds",
            "From a request's headers to the end of its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._stage_seconds = Histogram(
            "musicrec_stage_seconds",
            "Stages of an answer with recommendations.",
            ["stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._answers = Counter(
            "musicrec_answers",
            "Answers with recommendations by the rung of the ladder they stand on.",
            ["rung"],
            registry=registry,
        )
        self._degraded = Counter(
            "musicrec_degraded",
            "Answers that did without a part they should have had.",
            ["part"],
            registry=registry,
        )
        self._events = Counter(
            "musicrec_events",
            "Events written, by kind.",
            ["kind"],
            registry=registry,
        )
        self._model_workers = Gauge(
            "musicrec_model_workers",
            "Workers that answer with this version of the model.",
            ["version"],
            multiprocess_mode="livesum",
            registry=registry,
        )
        self._model_loads = Counter(
            "musicrec_model_loads",
            "Model files looked at: taken, or refused while the old one goes on.",
            ["outcome"],
            registry=registry,
        )
        self._resting = Gauge(
            "musicrec_part_resting",
            "Workers that leave a part alone for a moment because it failed or hung.",
            ["part"],
            multiprocess_mode="livesum",
            registry=registry,
        )
        self._feature_rows = Counter(
            "musicrec_feature_rows",
            "Rows of the feature store that answers asked for, by view and state.",
            ["view", "state"],
            registry=registry,
        )
        self._feature_age = Histogram(
            "musicrec_feature_age_seconds",
            "Age of the newest row of a view in an answer, at the moment it answers for.",
            ["view"],
            buckets=_AGES,
            registry=registry,
        )
        self._version: str | None = None

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered. ``route`` is its template: paths hold ids, and have no bound."""
        self._requests.labels(route, method, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)

    def answer(self, answer: Answer) -> None:
        """Recommendations were made."""
        self._answers.labels(answer.rung).inc()
        for degraded in answer.degraded:
            self._degraded.labels(degraded.part).inc()
        for stage, milliseconds in answer.stages.items():
            self._stage_seconds.labels(stage).observe(milliseconds / 1000)

    def event(self, kind: str) -> None:
        """An event was written."""
        self._events.labels(kind).inc()

    def features(
        self, views: tuple[str, ...], states: NDArray[np.uint8], ages: NDArray[np.float32]
    ) -> None:
        """Features were read for an answer.

        Args:
            views: of the columns of both.
            states: ``(rows, views)`` of ``features.plan.State``.
            ages: ``(rows, views)`` seconds; NaN where there is no row.
        """
        for column, view in enumerate(views):
            counts = np.bincount(states[:, column], minlength=len(_STATES)).tolist()
            for state, count in enumerate(counts):
                if count:
                    self._feature_rows.labels(view, _STATES[state]).inc(count)
            known = ages[:, column][~np.isnan(ages[:, column])]
            if len(known):
                self._feature_age.labels(view).observe(float(known.min()))

    def model_loaded(self, version: str) -> None:
        """This worker answers with another model from now on."""
        if self._version is not None:
            self._model_workers.labels(self._version).set(0)
        self._version = version
        self._model_workers.labels(version).set(1)
        self._model_loads.labels("taken").inc()

    def model_refused(self) -> None:
        """A model file was looked at and not taken."""
        self._model_loads.labels("refused").inc()

    def resting(self, part: Literal["postgres", "redis"], is_resting: bool) -> None:
        """A part is left alone from now on, or asked again."""
        self._resting.labels(part).set(float(is_resting))

    def exposition(self) -> bytes:
        """All figures as Prometheus' text, those of the other workers included."""
        folder = shared_folder()
        if folder is None:
            return generate_latest(self._registry)
        _forget_dead_workers(folder)
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call]
        return generate_latest(registry)


def _forget_dead_workers(folder: Path) -> None:
    """What counts the living is not to count a worker that was killed; its totals stay."""
    for file in folder.glob("gauge_live*_*.db"):
        worker = int(file.stem.rpartition("_")[2])
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            multiprocess.mark_process_dead(worker, str(folder))  # type: ignore[no-untyped-call]
        except PermissionError:  # it lives, as another user
            continue
