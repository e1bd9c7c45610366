"""Brings Redis to a moment: computes the ends that are due, writes them, moves the watermarks.

View after view. One that fails does not keep the others from being brought up to date; its
watermark stays, and tells since when it is stale.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import itemgetter
from typing import TYPE_CHECKING, Literal

from musicrec.database.engine import Dataset
from musicrec.database.redis_address import RedisAddress
from musicrec.errors import DataError, FeatureError, MusicrecError
from musicrec.features import repository
from musicrec.features.compute import DAY, Computation, check_timed, compute, window_ends
from musicrec.features.materialize import Written, write
from musicrec.features.tables import make, psycopg_connection
from musicrec.features.views import ALWAYS, STORED, View

if TYPE_CHECKING:
    from feast import FeatureStore

_PLAYS = "SELECT min(occurred_at), max(occurred_at) FROM interactions"
_COMPUTED = """
SELECT window_end, cadence FROM feature_computations
WHERE view = %s AND window_end BETWEEN %s AND %s ORDER BY window_end
"""

Step = Literal["computing", "writing", "pruning"]

#: Told ``(view, step, done, total)``: ends that are computed, or rows that are written.
OnProgress = Callable[[str, Step, int, int], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one view.

    Attributes:
        view: its name.
        computed: how many ends' rows were computed; others were known.
        written: None if it failed before.
        watermark: up to when its rows are in Redis; None if they never were.
        failure: why it is stale; None if it is not.
    """

    view: str
    computed: int
    written: Written | None
    watermark: datetime | None
    failure: MusicrecError | None


def plays(dataset: Dataset) -> tuple[datetime, datetime]:
    """When the first and the last play began.

    Raises:
        DataError: there are no plays, or the dataset has no times.
    """
    with psycopg_connection(dataset, "read the listens") as connection:
        check_timed(connection, dataset.name)
        first, last = connection.execute(_PLAYS).fetchone() or (None, None)
    if first is None or last is None:
        raise DataError(
            f"dataset {dataset.name!r} holds no listens any more; import some with "
            f"scripts/import_interactions.py dataset={dataset.name}"
        )
    return first, last


def prepared(dataset: Dataset, redis: RedisAddress) -> FeatureStore:
    """Feast's store, its registry and all tables as the code says. Importing Feast takes seconds.

    Raises:
        DatabaseError, FeatureError: as ``repository.open_store`` and ``repository.apply``.
    """
    with psycopg_connection(dataset, "make the tables of features") as connection:
        for view in STORED:
            make(connection, dataset.name, view)
    store = repository.open_store(dataset, redis)
    repository.apply(store)
    return store


def bring(
    dataset: Dataset,
    views: Sequence[View],
    end: datetime,
    store: FeatureStore,
    redis: RedisAddress,
    *,
    cadence: timedelta = DAY,
    since: datetime | None = None,
    on_progress: OnProgress | None = None,
) -> list[Outcome]:
    """Bring views to ``end``, one after the other, whatever becomes of the others.

    Args:
        dataset: a timed one.
        views: of ``STORED``.
        end: at ``cadence``, and not in the future.
        store: as from ``prepared``.
        redis: where it writes.
        cadence: from one end to the next.
        since: for training, compute every end from this moment on; None: the last one. Either
            way also those left out before, whose absence would show.
        on_progress: told as work goes on.
    """
    outcomes = []
    for view in views:
        run = _Run(dataset, view, end, cadence, since, on_progress)
        failure = None
        try:
            run.compute(repository.watermark(store, view.name))
            run.write(redis)
            start = end - view.ttl if view.ttl else ALWAYS
            repository.record_materialized(store, view.name, start, end)
        except MusicrecError as error:
            failure = error
        watermark = repository.watermark(store, view.name)
        outcomes.append(Outcome(view.name, run.computed, run.written, watermark, failure))
    return outcomes


def compute_ends(
    dataset: Dataset,
    since: datetime,
    end: datetime,
    *,
    cadence: timedelta = DAY,
    on_progress: OnProgress | None = None,
) -> int:
    """Compute all views from ``since`` to ``end``, for training alone: Redis is not touched.

    Args:
        since, end: as ``bring`` takes them.

    Returns:
        How many ends were computed; others were known.
    """
    with psycopg_connection(dataset, "make the tables of features") as connection:
        for view in STORED:
            make(connection, dataset.name, view)
    computed = 0
    for view in STORED:
        run = _Run(dataset, view, end, cadence, since, on_progress)
        run.compute(None)
        computed += run.computed
    return computed


def stale(outcomes: Sequence[Outcome]) -> FeatureError | None:
    """The views that failed, since when they are stale, and why; None if none did."""
    failed = [outcome for outcome in outcomes if outcome.failure]
    if not failed:
        return None
    reasons: dict[str, list[str]] = {}
    for outcome in failed:
        since = (
            f"since {outcome.watermark:%Y-%m-%d %H:%M} UTC"
            if outcome.watermark
            else "never written"
        )
        reasons.setdefault(str(outcome.failure), []).append(f"{outcome.view} ({since})")
    said = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in reasons.items())
    return FeatureError(f"{len(failed)} of {len(outcomes)} views are stale: {said}")


class _Run:
    """One view on its way; holds how far it came."""

    def __init__(
        self,
        dataset: Dataset,
        view: View,
        end: datetime,
        cadence: timedelta,
        since: datetime | None,
        on_progress: OnProgress | None,
    ) -> None:
        self.computed = 0
        self.written: Written | None = None
        self._dataset, self._view, self._end = dataset, view, end
        self._cadence, self._since = cadence, since
        self._on_progress = on_progress

    def compute(self, in_redis: datetime | None) -> None:
        first = self._end if self._since is None else min(self._since, self._end)
        ends = _due(self._dataset, self._view, first, self._end, self._cadence, in_redis)
        self._tell("computing", 0, len(ends))
        done = 0

        def on_computed(computation: Computation) -> None:
            nonlocal done
            done += 1
            self.computed += computation.is_new
            self._tell("computing", done, len(ends))

        compute(self._dataset, self._view, ends, cadence=self._cadence, on_progress=on_computed)

    def write(self, redis: RedisAddress) -> None:
        def on_written(done: int, total: int) -> None:
            self._tell("writing", done, total)

        self.written = write(self._dataset, self._view, self._end, redis, on_written)

    def _tell(self, step: Step, done: int, total: int) -> None:
        if self._on_progress:
            self._on_progress(self._view.name, step, done, total)


def _due(
    dataset: Dataset,
    view: View,
    first: datetime,
    end: datetime,
    cadence: timedelta,
    in_redis: datetime | None,
) -> list[datetime]:
    """The ends to compute: all from ``first`` to ``end``, and those left out before.

    An entity that fell silent has its last row at the end after its window. Where that end was left
    out its row before would be served, and trained on, for the rest of its time to live.

    Args:
        in_redis: up to when Redis holds rows. Where none computed is of that time, they are by an
            earlier definition, and every row that may still be served is computed again.
    """
    if view.window is None:
        return [ALWAYS]
    asked = window_ends(first, end, cadence)
    oldest = first - view.ttl if view.ttl else ALWAYS
    with psycopg_connection(dataset, "read what is computed") as connection:
        computed = connection.execute(_COMPUTED, (view.name, oldest, end)).fetchall()
    if computed:
        begin = computed[0][0]
    elif in_redis and oldest <= in_redis <= end:
        begin = oldest
    else:
        return list(asked)
    gaps = [e for e in window_ends(begin, end, cadence) if begin <= e and _is_gap(e, computed)]
    return sorted({*asked, *gaps})


def _is_gap(end: datetime, computed: Sequence[tuple[datetime, timedelta]]) -> bool:
    """Whether no computed end, with its cadence, says who fell silent at ``end``."""
    place = bisect_left(computed, end, key=itemgetter(0))
    if place == len(computed):
        return True
    later, cadence = computed[place]
    return later - cadence >= end
