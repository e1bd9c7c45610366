"""What a dataset is and how far each import got: ``dataset_info`` and ``imports``."""

from __future__ import annotations

from typing import NamedTuple

from adbc_driver_manager.dbapi import Cursor

from musicrec.database.engine import Dataset
from musicrec.database.erasure import import_lock
from musicrec.errors import DataError
from musicrec.interactions.source import Source

#: Names the state of the listens, tracks and users, whoever changed them (``data_changes``).
_STATE = "SELECT count(*) || ':' || coalesce(max(change_id), 0) FROM data_changes"


class Entry(NamedTuple):
    """A finished import: its rows, and whether nothing at all has changed in the data since."""

    listens: int
    rejected: int
    is_unchanged: bool


class Ledger:
    """The entry of one source in one dataset; works in transactions that the caller ends."""

    def __init__(self, dataset: Dataset, source: Source) -> None:
        """Nothing is read or written yet, but the source's fingerprint is taken."""
        self._dataset = f"dataset {dataset.name!r}"
        self._lock = import_lock(dataset.name)
        self._source = source
        self.fingerprint = source.fingerprint()
        self._expected_changes: int | None = None

    def enter(self, cursor: Cursor) -> None:
        """Keep everybody who would erase a listener out, until the connection ends.

        Importers share this lock. They remember the keys of the listeners they have seen, and
        would go on writing plays of one who is gone.
        """
        cursor.execute(
            "SELECT pg_advisory_lock_shared(hashtextextended($1, 0))", parameters=(self._lock,)
        )

    def entry(self, cursor: Cursor) -> Entry | None:
        """What is noted of this very source, None if it was never imported to its end."""
        cursor.execute(
            "SELECT rows_added + rows_known, rows_rejected, "  # noqa: S608  a constant goes in
            f"finished_state IS NOT DISTINCT FROM ({_STATE}) "
            "FROM imports WHERE fingerprint = $1 AND finished_at IS NOT NULL",
            parameters=(self.fingerprint,),
        )
        row = cursor.fetchone()
        return Entry(*row) if row else None

    def reasons(self, cursor: Cursor) -> dict[str, int]:
        """This source's rejected rows by reason."""
        cursor.execute(
            "SELECT reason, count(*) FROM rejected_rows WHERE source = $1 "
            "GROUP BY reason ORDER BY count(*) DESC",
            parameters=(self.fingerprint,),
        )
        return dict(cursor.fetchall())

    def check(self, cursor: Cursor) -> None:
        """Refuse a source that does not belong into this dataset.

        Raises:
            DataError: it is timed and the dataset is not, or the other way round, or it is a
                second untimed one.
        """
        self._timed_by_now(cursor)
        cursor.execute("SELECT count(*) FROM data_changes")
        ((self._expected_changes,),) = cursor.fetchall()

    def claim(self, cursor: Cursor) -> None:
        """Check again, with the tables locked, and make the dataset timed or untimed for good."""
        if self._timed_by_now(cursor) is None:
            cursor.execute("UPDATE dataset_info SET timed = $1", parameters=(self._source.timed,))

    def note(
        self, cursor: Cursor, *, last_line: int, rows_added: int, listens: int, rejected: int
    ) -> None:
        """Note a chunk, in its own transaction; an import that is finished stays as it is.

        Args:
            cursor: in the transaction that stored the chunk.
            last_line: the last line of the chunk.
            rows_added: by this chunk.
            listens: rows this run has read and not rejected, from the source's start.
            rejected: rows it has rejected, from the source's start.
        """
        cursor.execute(
            "INSERT INTO imports AS i (fingerprint, source, format, last_line, rows_added, "
            "rows_known, rows_rejected) VALUES ($1, $2, $3, $4, $5, $6 - $5, $7) "
            "ON CONFLICT (fingerprint) DO UPDATE SET "
            "last_line = greatest(i.last_line, $4), "
            "rows_added = i.rows_added + $5, "
            "rows_known = greatest(i.rows_known, $6 - i.rows_added - $5), "
            "rows_rejected = greatest(i.rows_rejected, $7) "
            "WHERE i.finished_at IS NULL",
            parameters=(
                self.fingerprint,
                self._source.describe(),
                self._source.name,
                last_line,
                rows_added,
                listens,
                rejected,
            ),
        )

    def own(self, cursor: Cursor) -> None:
        """Count the changes of the present transaction as this import's own."""
        cursor.execute("SELECT count(*) FROM data_changes WHERE xmin = pg_current_xact_id()::xid")
        ((changes,),) = cursor.fetchall()
        assert self._expected_changes is not None, "check comes first"
        self._expected_changes += changes

    def finish(self, cursor: Cursor) -> None:
        """Note that the source was read to its end and all of it is stored as of now.

        If anybody else changed the data since ``check``, a row stored early may be gone again:
        then no state is noted, and the next import verifies every row.
        """
        cursor.execute(
            "UPDATE imports SET finished_at = coalesce(finished_at, now()), "  # noqa: S608  likewise
            "finished_state = CASE WHEN (SELECT count(*) FROM data_changes) = $2 "
            f"THEN ({_STATE}) END WHERE fingerprint = $1",
            parameters=(self.fingerprint, self._expected_changes),
        )

    def _timed_by_now(self, cursor: Cursor) -> bool | None:
        """Whether the dataset is timed, None for one that is neither yet."""
        cursor.execute("SELECT timed FROM dataset_info")
        timed: bool | None
        ((timed,),) = cursor.fetchall()
        place, timed_here = self._source.describe(), self._source.timed
        if timed is not None and timed != timed_here:
            words = ("untimed (order only)", "timed")
            raise DataError(
                f"{place} is {words[timed_here]}, but {self._dataset} is {words[timed]}; "
                "import it into another one with dataset=NAME"
            )
        if not timed_here and (other := self._other(cursor)):
            raise DataError(
                f"{self._dataset} holds the untimed {other}, and the order across two files is "
                f"not known; import {place} into another one with dataset=NAME"
            )
        return timed

    def _other(self, cursor: Cursor) -> str | None:
        cursor.execute(
            "SELECT source FROM imports WHERE fingerprint <> $1 LIMIT 1",
            parameters=(self.fingerprint,),
        )
        row = cursor.fetchone()
        return row[0] if row else None
