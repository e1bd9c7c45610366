"""Where recommendations made in advance are kept: a Parquet file, or a table of the dataset.

Both take some listeners at a time and hold no more than that. The file is one for all and appears
whole. The table is changed by one transaction for each batch of listeners, so that each listener's
rows are all of one moment and one model, and a run that was stopped goes on where it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, BinaryIO, NamedTuple, Protocol

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from sqlalchemy.exc import DBAPIError

from musicrec.database.engine import Dataset
from musicrec.errors import DatabaseError
from musicrec.interactions.catalogue import Catalogue
from musicrec.serving.pipeline import Chosen

SCHEMA = pa.schema(
    [
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("place", pa.int16(), nullable=False),
        pa.field("track_id", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("model_version", pa.string(), nullable=False),
        pa.field("created_at", pa.timestamp("us", tz="UTC"), nullable=False),
    ]
)

#: Rows of one row group: enough to compress, few enough to hold.
_GROUP_ROWS = 100_000

# Whoever is being forgotten is gone when this returns, or is forgotten after what follows.
_THERE = "SELECT user_key FROM users WHERE user_key = ANY(%s) ORDER BY user_key FOR KEY SHARE"
_DELETE = "DELETE FROM recommendations WHERE user_key = ANY(%s)"
_COPY = """
COPY recommendations (user_key, place, track_key, score, model_version, created_at) FROM STDIN
"""


class Recommended(NamedTuple):
    """What one listener is recommended, the best first."""

    user_key: int
    user_id: str
    tracks: Sequence[Chosen]


class Keeper(Protocol):
    """Takes the recommendations of some listeners."""

    def keep(self, batch: Sequence[Recommended]) -> int:
        """Of how many listeners they are kept now."""


class ParquetKeeper:
    """Writes them into an open file; places count from 1.

    Args:
        file: to be renamed by whoever opened it, once ``close`` has returned.
        catalogue: of the model.
        version: the model's.
    """

    def __init__(self, file: BinaryIO, catalogue: Catalogue, version: str) -> None:
        # Text as it is: ids are looked up by every reader, and dictionaries do it in the file.
        self._writer = pq.ParquetWriter(file, SCHEMA, compression="zstd")
        self._track_ids = pa.array(catalogue.track_ids, pa.string())
        self._version = version
        self._waiting: list[pa.Table] = []

    def keep(self, batch: Sequence[Recommended]) -> int:
        lengths = np.array([len(one.tracks) for one in batch], np.int64)
        items = [track.item - 1 for one in batch for track in one.tracks]
        num_rows = len(items)
        first = np.repeat(np.cumsum(lengths) - lengths, lengths)
        user = np.repeat(np.arange(len(batch)), lengths)
        columns = [
            pa.array([one.user_id for one in batch], pa.string()).take(pa.array(user)),
            pa.array((np.arange(num_rows) - first + 1).astype(np.int16)),
            self._track_ids.take(pa.array(items, pa.int64())),
            pa.array([track.score for one in batch for track in one.tracks], pa.float32()),
            pa.repeat(self._version, num_rows),
            pa.repeat(pa.scalar(datetime.now(UTC), SCHEMA.field("created_at").type), num_rows),
        ]
        self._waiting.append(pa.Table.from_arrays(columns, schema=SCHEMA))
        if sum(table.num_rows for table in self._waiting) >= _GROUP_ROWS:
            self._write()
        return len(batch)

    def close(self) -> None:
        """Write what is left, and the end of the file."""
        self._write()
        self._writer.close()

    def _write(self) -> None:
        self._writer.write_table(pa.concat_tables(self._waiting or [SCHEMA.empty_table()]))
        self._waiting.clear()


class TableKeeper:
    """Replaces the listeners' rows of the table ``recommendations``.

    Args:
        dataset: an opened one.
        keys: ``(catalogue_size + 1,)`` the surrogate of each item.
        version: the model's.
    """

    def __init__(self, dataset: Dataset, keys: NDArray[np.int64], version: str) -> None:
        self._dataset = dataset
        self._keys = keys
        self._version = version

    def keep(self, batch: Sequence[Recommended]) -> int:
        """Of how many listeners; one who was forgotten meanwhile is left out.

        Raises:
            DatabaseError: the server is lost or refuses; nothing of this batch was kept.
        """
        users = [one.user_key for one in batch]
        created_at = datetime.now(UTC)
        with _transaction(self._dataset) as connection, connection.cursor() as cursor:
            there = {row[0] for row in cursor.execute(_THERE, (users,))}
            cursor.execute(_DELETE, (users,))
            with cursor.copy(_COPY) as copy:
                for one in batch:
                    if one.user_key not in there:
                        continue
                    for place, track in enumerate(one.tracks, start=1):
                        key = int(self._keys[track.item])
                        row = (one.user_key, place, key, track.score, self._version, created_at)
                        copy.write_row(row)
        return len(there)


@contextmanager
def only_one(dataset: Dataset) -> Iterator[None]:
    """Keep other runs that would replace the same rows out until the block ends.

    Raises:
        DatabaseError: another one is at it.
    """
    with _transaction(dataset) as connection:
        row = connection.execute(
            "SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 0))",
            (f"musicrec recommendations {dataset.name}",),
        ).fetchone()
        if row is None or not row[0]:
            raise DatabaseError(
                f"another process is recommending for all of dataset {dataset.name!r}; wait for "
                "its end, or stop it"
            )
        yield


@contextmanager
def _transaction(dataset: Dataset) -> Iterator[psycopg.Connection[Any]]:
    """psycopg's connection, in a transaction of its own."""
    try:
        with dataset.engine.begin() as lent:
            connection = lent.connection.driver_connection
            assert isinstance(connection, psycopg.Connection)
            yield connection
    except (psycopg.Error, DBAPIError) as error:
        cause = getattr(error, "orig", None) or error
        state = getattr(cause, "sqlstate", None) or ""
        if not state or state.startswith(("08", "57")):
            raise dataset.address.failure(cause) from error
        said = cause.diag.message_primary if isinstance(cause, psycopg.Error) else str(cause)
        raise DatabaseError(
            f"cannot keep recommendations at {dataset.address.place}: {said}"
        ) from error
