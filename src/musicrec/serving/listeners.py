"""Everybody's listening, some listeners at a time; of each what the service reads of one.

A few queries serve all listeners of a batch, and their rows come as Arrow's: as tuples they would
take longer to read than to score. Memory holds one batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import orjson
import pyarrow as pa
from adbc_driver_manager.dbapi import Error as AdbcError
from numpy.typing import NDArray

from musicrec.database.engine import Dataset
from musicrec.errors import DatabaseError
from musicrec.serving.listening import Ints
from musicrec.serving.stored import READ_PLAYS, GraphRow, Stored

# Whose rows are as many as are wanted, and all of one model and new enough, is done.
_TO_DO = """
FROM users WHERE user_key > $1 AND NOT EXISTS (
    SELECT FROM recommendations AS made WHERE made.user_key = users.user_key
    HAVING count(*) = $2
       AND min(model_version) = $3 AND max(model_version) = $3 AND min(made.created_at) >= $4
)
"""
_USERS = f"SELECT user_key, user_id {_TO_DO} ORDER BY user_key LIMIT $5"
_COUNT = f"SELECT count(*) {_TO_DO}"

_PLAYS = f"""
SELECT listener.user_key, play.track_key, play.at, play.skipped
FROM unnest($1::bigint[]) AS listener (user_key) CROSS JOIN LATERAL (
    SELECT track_key, (extract(epoch FROM occurred_at) * 1000000)::bigint AS at, tie,
           coalesce(skipped::int, -1)::smallint AS skipped
    FROM interactions WHERE user_key = listener.user_key AND occurred_at < $2
    ORDER BY occurred_at DESC, tie DESC LIMIT {READ_PLAYS}
) AS play
ORDER BY listener.user_key, play.at, play.tie
"""  # noqa: S608
_HEARD = """
SELECT DISTINCT user_key, track_key FROM interactions
WHERE user_key = ANY($1::bigint[]) AND occurred_at < $2 ORDER BY user_key, track_key
"""
_FEEDBACK = """
SELECT DISTINCT ON (user_key, track_key) user_key, track_key, kind = 'like' AS is_like
FROM feedback WHERE user_key = ANY($1::bigint[]) AND occurred_at < $2
ORDER BY user_key, track_key, occurred_at DESC
"""
_GRAPHS = """
SELECT user_key, graph_id, graph::text AS document FROM user_interest_graph
WHERE user_key = ANY($1::bigint[]) AND is_current
"""

_ALWAYS = datetime(9999, 1, 1, tzinfo=UTC)


class Done(NamedTuple):
    """Who needs nothing any more: those with ``k`` rows in the table ``recommendations``.

    Attributes:
        k: so many; -1: nobody is done.
        version: of the model that all of them must be of.
        since: before which none of them may have been made.
    """

    k: int
    version: str
    since: datetime


class Listener(NamedTuple):
    """One listener of a dataset, and what is stored of them."""

    user_key: int
    user_id: str
    stored: Stored


class Listeners:
    """Reads a dataset's listeners by rising key; a context manager that closes its connection.

    Args:
        dataset: an opened one.
        before: plays and likes of then and later do not count; None: all count.
        done: who is left out.
        all_heard: also read every track ever played.
        graphs: also read the current interest graphs.

    Raises:
        DatabaseError: by everything here, if the server cannot be reached or is lost.
    """

    def __init__(
        self,
        dataset: Dataset,
        before: datetime | None,
        done: Done,
        *,
        all_heard: bool,
        graphs: bool,
    ) -> None:
        self._address = dataset.address
        self._before = before or _ALWAYS
        self._done = done
        self._all_heard = all_heard
        self._graphs = graphs
        self._connection = dataset.adbc()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()

    def count(self) -> int:
        """How many there are to do."""
        return int(self._rows(_COUNT, (-1, *self._done)).column(0)[0].as_py())

    def batches(self, size: int) -> Iterator[list[Listener]]:
        """All of them, ``size`` at a time, each read when it is asked for."""
        last = -1
        while (users := self._rows(_USERS, (last, *self._done, size))).num_rows:
            batch = self._listeners(users["user_key"].to_numpy(), users["user_id"].to_pylist())
            yield batch
            last = batch[-1].user_key

    def _listeners(self, keys: Ints, user_ids: Sequence[str]) -> list[Listener]:
        asked = (keys.tolist(), self._before)
        plays = ByListener(keys, self._rows(_PLAYS, asked))
        heard = ByListener(keys, self._rows(_HEARD, asked)) if self._all_heard else None
        said = ByListener(keys, self._rows(_FEEDBACK, asked))
        graphs = self._graphs_of(keys) if self._graphs else {}
        listeners = []
        for row, (key, user_id) in enumerate(zip(keys.tolist(), user_ids, strict=True)):
            about, is_like = said.of(row, "track_key"), said.of(row, "is_like")
            stored = Stored(
                tracks=plays.of(row, "track_key"),
                times=plays.of(row, "at"),
                skipped=plays.of(row, "skipped").astype(np.int8),
                heard=None if heard is None else heard.of(row, "track_key"),
                liked=about[is_like],
                disliked=about[~is_like],
                graph=graphs.get(key),
            )
            listeners.append(Listener(key, user_id, stored))
        return listeners

    def _graphs_of(self, keys: Ints) -> Mapping[int, GraphRow]:
        rows = self._rows(_GRAPHS, (keys.tolist(),)).to_pylist()
        return {
            row["user_key"]: GraphRow(row["graph_id"], orjson.loads(row["document"]))
            for row in rows
        }

    def _rows(self, query: str, values: Sequence[Any]) -> pa.Table:
        """All rows, in a transaction of their own: none is kept open from batch to batch."""
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(query, parameters=tuple(values))
                rows = cursor.fetch_arrow_table()
            self._connection.commit()
        except (AdbcError, OSError) as error:  # a server that goes away is a plain OSError to ADBC
            state = getattr(error, "sqlstate", None) or ""
            if not state or state.startswith(("08", "57")):
                raise self._address.failure(error) from error
            reason = " ".join(str(error).split())
            raise DatabaseError(
                f"cannot read listens at {self._address.place}: {reason}"
            ) from error
        return rows


class ByListener:
    """Columns of rows that are ordered by ``user_key``, taken apart.

    Args:
        keys: rising; every row is of one of them.
        rows: with a column ``user_key``.
    """

    def __init__(self, keys: Ints, rows: pa.Table) -> None:
        self._columns = {
            name: rows[name].to_numpy() for name in rows.column_names if name != "user_key"
        }
        users = rows["user_key"].to_numpy()
        self._starts = np.searchsorted(users, keys)
        self._ends = np.searchsorted(users, keys, side="right")

    def of(self, row: int, column: str) -> NDArray[Any]:
        """The values of the listener of ``keys[row]``, in order."""
        return self._columns[column][self._starts[row] : self._ends[row]]
