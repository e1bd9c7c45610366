"""The rows of the stored views, computed in Postgres from its listens: one end after the other.

An *end* is the exclusive end of a view's window, and the stamp of the rows computed for it. Ends
lie at a cadence counted from midnight UTC: one a day, or any whole number of hours that divides
the day.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from musicrec.database.engine import Dataset
from musicrec.errors import ConfigError, DataError, FeatureError
from musicrec.features import tables
from musicrec.features.views import ALWAYS, View

DAY = timedelta(days=1)

_HOUR = timedelta(hours=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

#: Names the state of the listens, tracks and users, whoever changed them.
_STATE = "SELECT count(*) || ':' || coalesce(max(change_id), 0) FROM data_changes"

_KNOWN = """
SELECT num_rows FROM feature_computations
WHERE (view, window_end, definition, cadence, data_state) = (%s, %s, %s, %s, %s)
"""

_NOTE = """
INSERT INTO feature_computations AS c
    (view, window_end, definition, cadence, data_state, num_rows) VALUES (%s, %s, %s, %s, %s, %s)
ON CONFLICT (view, window_end) DO UPDATE SET
    (definition, cadence, data_state, num_rows, computed_at)
    = (excluded.definition, excluded.cadence, excluded.data_state, excluded.num_rows, now())
"""


class Computation(NamedTuple):
    """One end of one view.

    Attributes:
        is_new: False where the same definition had computed it from the same data.
    """

    view: str
    window_end: datetime
    num_rows: int
    is_new: bool


def window_end(as_of: datetime, cadence: timedelta = DAY) -> datetime:
    """The latest end that is not after ``as_of``, in UTC.

    Raises:
        ConfigError: ``as_of`` has no time zone, or no cadence can be ``cadence``.
    """
    if as_of.tzinfo is None:
        raise ConfigError(
            f"as_of={as_of.isoformat()} has no time zone; write as_of={as_of.isoformat()}+00:00 "
            "for UTC"
        )
    if cadence < _HOUR or cadence % _HOUR or DAY % cadence:
        raise ConfigError(
            f"cadence={cadence} does not divide the day into whole hours; use 1, 2, 3, 4, 6, 8, "
            "12 or 24 hours"
        )
    since = as_of - _EPOCH
    return _EPOCH + since // cadence * cadence


def window_ends(first: datetime, last: datetime, cadence: timedelta = DAY) -> Iterator[datetime]:
    """Every end from the latest that is not after ``first`` to the latest not after ``last``."""
    end = window_end(first, cadence)
    while end <= last:
        yield end
        end += cadence


def compute(
    dataset: Dataset,
    view: View,
    ends: Iterable[datetime],
    *,
    cadence: timedelta = DAY,
    on_progress: Callable[[Computation], None] | None = None,
) -> list[Computation]:
    """Compute a view's rows of each end, unless they are known.

    An end's rows are those of all entities that played in its window, and a last row of those that
    played only in the cadence before it. Each end is one transaction: its rows are there as a whole
    and recorded in ``feature_computations``, or as they were. It is computed anew when the data,
    the view's definition or the cadence is another than the recorded one.

    Args:
        dataset: a timed one.
        view: a stored one. One without a window has the one end ``ALWAYS``, whatever ``ends`` are.
        ends: as from ``window_ends``, at ``cadence``.
        cadence: from one end to the next.
        on_progress: told after each end.

    Raises:
        ConfigError: an end is not at ``cadence``, or has no time zone.
        DataError: the dataset has no times.
        FeatureError: an end lies in the future, where no window is whole.
        DatabaseError: the server refuses or is lost; ends done by then stay.
    """
    checked = [ALWAYS] if view.window is None else [_checked(end, cadence) for end in ends]
    done: list[Computation] = []
    with tables.psycopg_connection(dataset, f"compute {view.name}") as connection:
        check_timed(connection, dataset.name)
        tables.make(connection, dataset.name, view)
        for end in checked:
            done.append(_compute(connection, view, end, cadence))
            if on_progress:
                on_progress(done[-1])
        if any(computation.is_new for computation in done):
            with connection.transaction():
                connection.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(view.name)))
    return done


def _checked(end: datetime, cadence: timedelta) -> datetime:
    floor = window_end(end, cadence)
    if floor != end:
        raise ConfigError(
            f"window end {end.isoformat()} is not at a cadence of {cadence}; the one before it is "
            f"{floor.isoformat()}"
        )
    if floor > datetime.now(UTC):
        raise FeatureError(
            f"window end {end.isoformat()} lies in the future, and its plays have not all been "
            "played; use a window end that is past"
        )
    return floor


def check_timed(connection: psycopg.Connection[Any], name: str) -> None:
    """Refuse a dataset without times, or without any listens yet.

    Raises:
        DataError: says which, and the way out.
    """
    with connection.transaction():
        row = connection.execute("SELECT timed FROM dataset_info").fetchone()
    timed = row[0] if row else None
    if timed is None:
        raise DataError(
            f"dataset {name!r} holds no listens; import some with "
            f"scripts/import_interactions.py dataset={name}"
        )
    if not timed:
        raise DataError(
            f"dataset {name!r} is untimed (order only), and features need times; use a dataset "
            "imported from a format with times"
        )


def _compute(
    connection: psycopg.Connection[Any], view: View, end: datetime, cadence: timedelta
) -> Computation:
    """One transaction over one state of the data."""
    name = tables.definition(view)
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        # Locked before the first query, which is what fixes the state that this transaction sees:
        # whoever waits here sees what the other one did.
        table = sql.Identifier(view.name)
        connection.execute(sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(table))
        (state,) = connection.execute(_STATE).fetchone() or ("",)
        record = (view.name, end, name, cadence, state)
        if known := connection.execute(_KNOWN, record).fetchone():
            return Computation(view.name, end, known[0], is_new=False)
        connection.execute(
            sql.SQL("DELETE FROM {} WHERE {} = %s").format(table, sql.Identifier(tables.STAMP)),
            (end,),
        )
        # Planned for these very times: a plan for any window would guess how many plays one has.
        inserted = connection.execute(
            tables.insertion(view), _bounds(view, end, cadence), prepare=False
        )
        connection.execute(_NOTE, (*record, inserted.rowcount))
    return Computation(view.name, end, inserted.rowcount, is_new=True)


def _bounds(view: View, end: datetime, cadence: timedelta) -> dict[str, datetime]:
    """In Python, since a day of Postgres' has 23 hours where the session's time zone says so."""
    if view.window is None:
        return {"window_end": end}
    start = end - view.window
    return {"window_end": end, "window_start": start, "closing_start": start - cadence}
