"""Features as training sees them: of a listener and a track at a moment, nothing of it or after.

A row's features come from the stored row with the latest stamp *strictly before* the moment,
unless that is more than the view's time-to-live ago. Feast's own historical join also takes a
stamp equal to the moment; we do not, so that no play can be among its own features, however the
clocks of those who wrote either were set.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from adbc_driver_manager.dbapi import Cursor

from musicrec.database.engine import Dataset
from musicrec.errors import FeatureError
from musicrec.features import context, tables
from musicrec.features.compute import DAY, window_end
from musicrec.features.views import ALWAYS, STORED, View

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

#: Rows joined at once, neighbours in time: what is read of the tables is theirs alone.
ROWS_AT_ONCE = 250_000

_US = timedelta(microseconds=1)

_COMPUTED = """
SELECT window_end, window_end - cadence, definition FROM feature_computations
WHERE view = $1 ORDER BY window_end
"""


def point_in_time(
    dataset: Dataset,
    rows: pl.DataFrame | pa.Table,
    *,
    views: Sequence[View] = STORED,
    cadence: timedelta = DAY,
) -> pl.DataFrame:
    """The features of each row, as they were known just before it.

    Args:
        dataset: with computed rows of ``views``.
        rows: ``user_id``, ``track_id`` and ``occurred_at`` (microseconds, UTC), none of them
            null; optionally the columns of ``context.REQUEST``, null where not known.
        views: the stored views wanted.
        cadence: at which they were computed.

    Returns:
        A row for each row, in their order; float32 columns ``view__feature`` of ``views``, then
        those of ``context_aware_features``. NaN is null, no row, and none that is young enough.

    Raises:
        FeatureError: ``rows`` lacks a column, or a view was not computed for every end that a
            row needs, or by another definition: NaN would stand for what serving knew.
        DatabaseError: the server cannot be reached, or is lost.
    """
    import polars as pl

    moments = _moments(rows)
    parts: list[pl.DataFrame] = []
    with tables.reading(dataset) as cursor:
        if len(moments):
            _check_computed(cursor, dataset.name, views, moments["occurred_at"], cadence)
        ordered = moments.with_row_index("row").sort("occurred_at")
        for block in ordered.iter_slices(ROWS_AT_ONCE):
            joined = [_as_of(cursor, view, block) for view in views]
            parts.append(pl.concat([block.select("row"), *joined], how="horizontal"))
    names = [name for view in views for name in view.columns]
    if not parts:
        stored = pl.DataFrame(schema=dict.fromkeys(names, pl.Float32))
    else:
        stored = pl.concat(parts).sort("row").select(names)
    return stored.hstack(_on_demand(moments, stored))


def _moments(rows: pl.DataFrame | pa.Table) -> pl.DataFrame:
    """The columns that we know, checked."""
    import polars as pl

    frame = rows if isinstance(rows, pl.DataFrame) else pl.DataFrame(rows)
    wanted = {"user_id": pl.String, "track_id": pl.String, "occurred_at": pl.Datetime("us", "UTC")}
    for name, kind in wanted.items():
        if name not in frame.columns:
            raise FeatureError(
                f"rows have no column {name!r}; they have {', '.join(frame.columns)}"
            )
        if name == "occurred_at" and frame[name].dtype != kind:
            raise FeatureError(
                f"occurred_at is {frame[name].dtype}; make it {kind}, where the time zone is "
                "that in which the times were meant"
            )
        if nulls := frame[name].null_count():
            raise FeatureError(f"{nulls:,} rows have no {name}; leave them out")
    optional = [name for name in context.REQUEST if name in frame.columns]
    ids = [pl.col(name).cast(pl.String) for name in ("user_id", "track_id")]
    return frame.select(*ids, "occurred_at", *optional)


def _check_computed(
    cursor: Cursor, dataset: str, views: Sequence[View], times: pl.Series, cadence: timedelta
) -> None:
    """Refuse to join what was not computed: NaN would stand for it."""
    needed = _ends_before(times, cadence)
    way_out = (
        f"compute them with `python scripts/materialize_features.py dataset={dataset} "
        f"cadence_hours={cadence // timedelta(hours=1)} backfill={min(needed):%Y-%m-%dT%H:%M} "
        f"as_of={max(needed):%Y-%m-%dT%H:%M}`"
    )
    cursor.execute("SELECT to_regclass('feature_computations') IS NULL")
    if cursor.fetchall()[0][0]:
        raise FeatureError(f"dataset {dataset!r} has no computed features; {way_out}")
    for view in views:
        cursor.execute(_COMPUTED, parameters=(view.name,))
        computed = {end: (closes, name) for end, closes, name in cursor.fetchall()}
        if {name for _, name in computed.values()} - {tables.definition(view)}:
            raise FeatureError(
                f"rows of {view.name} in dataset {dataset!r} were computed by another definition "
                f"than this code's; {way_out}"
            )
        ends = needed if view.window else {ALWAYS}
        if missing := ends - set(computed):
            raise FeatureError(
                f"{view.name} was not computed for {len(missing):,} of the {len(ends):,} window "
                f"ends that the rows need in dataset {dataset!r}, such as "
                f"{min(missing).isoformat()}; {way_out}"
            )
        if gap := _gap(view, {end: closes for end, (closes, _) in computed.items()}, ends):
            raise FeatureError(
                f"{view.name} was not computed between {gap[0].isoformat()} and "
                f"{gap[1].isoformat()} in dataset {dataset!r}, so that who fell silent then would "
                f"be seen as before; {way_out}"
            )


def _gap(
    view: View, computed: dict[datetime, datetime], needed: set[datetime]
) -> tuple[datetime, datetime] | None:
    """Two computed ends with too much time between, and rows before it that would still be seen.

    Args:
        computed: ends, in order, and since when each says who fell silent.
        needed: those of ``computed`` that are looked at.
    """
    for before, (end, closes) in zip(computed, [*computed.items()][1:], strict=False):
        lasts = before + view.ttl if view.ttl else datetime.max.replace(tzinfo=UTC)
        if closes > before and any(end <= each < lasts for each in needed):
            return before, end
    return None


def _ends_before(times: pl.Series, cadence: timedelta) -> set[datetime]:
    """The latest end strictly before each time; whatever it holds, a later one is not seen."""
    hours = (times - _US).dt.truncate("1h").unique().to_list()
    return {window_end(hour, cadence) for hour in hours}


def _as_of(cursor: Cursor, view: View, block: pl.DataFrame) -> pl.DataFrame:
    """One view's columns for rows sorted by time, in their order."""
    import polars as pl

    keys = list(view.join_keys)
    entities = block.select(keys).unique(maintain_order=True).with_row_index("entity")
    entities = entities.with_columns(pl.col("entity").cast(pl.Int32))
    first, last = block["occurred_at"][0], block["occurred_at"][-1]
    features = _features_of(cursor, view, entities, first, last)
    moments = block.select(*keys, "occurred_at").join(
        entities, on=keys, how="left", maintain_order="left"
    )
    joined = moments.join_asof(
        features,
        left_on="occurred_at",
        right_on=tables.STAMP,
        by="entity",
        strategy="backward",
        tolerance=view.ttl,
        allow_exact_matches=False,
        check_sortedness=False,  # cannot be, with `by`; both sides were just sorted
    )
    return joined.select(
        pl.col(feature.name).cast(pl.Float32).fill_null(float("nan")).alias(column)
        for feature, column in zip(view.features, view.columns, strict=True)
    )


def _features_of(
    cursor: Cursor, view: View, entities: pl.DataFrame, first: datetime, last: datetime
) -> pl.DataFrame:
    """A view's rows that may be the latest of one of ``entities`` at a time in first..last."""
    import polars as pl

    cursor.adbc_ingest("needed", entities.to_arrow(), mode="replace", temporary=True)
    cursor.execute("ANALYZE needed")
    # One pass over the times, each row looked up among the needed: the planner takes a hundred
    # searches of the index for every entity, one for each stamp, to be cheap (7 times slower at 5
    # M rows), or sorts it all.
    cursor.execute("SET LOCAL enable_nestloop = off")
    cursor.execute("SET LOCAL enable_mergejoin = off")
    cursor.execute("SET LOCAL jit = off")
    columns = ", ".join(f'stored."{feature.name}"' for feature in view.features)
    keys = ", ".join(view.join_keys)
    since = "AND stored.event_timestamp >= $2" if view.ttl else ""
    times = (last, first - view.ttl) if view.ttl else (last,)
    cursor.execute(
        f"SELECT needed.entity, stored.event_timestamp, {columns} "  # noqa: S608  names of views
        f"FROM {view.name} AS stored JOIN needed USING ({keys}) "
        f"WHERE stored.event_timestamp < $1 {since}",
        parameters=times,
    )
    frame = pl.DataFrame(cursor.fetch_arrow_table())
    return frame.sort(tables.STAMP)


def _on_demand(moments: pl.DataFrame, stored: pl.DataFrame) -> pl.DataFrame:
    """``context_aware_features``, NaN where ``moments`` or ``stored`` lacks what it needs."""
    import polars as pl

    nothing = np.full(len(moments), np.nan, np.float32)
    inputs: dict[str, Any] = dict.fromkeys((*context.REQUEST, *context.STORED_INPUTS), nothing)
    inputs.update(
        {name: moments[name].to_list() for name in context.REQUEST if name in moments.columns}
    )
    inputs.update(
        {name: stored[name].to_numpy() for name in context.STORED_INPUTS if name in stored.columns}
    )
    return pl.DataFrame(context.of_rows(inputs), schema=list(context.COLUMNS), orient="row")
