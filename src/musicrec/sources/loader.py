"""The import: a source's listens into the tables of a dataset.

Each chunk of a source is one transaction: lock the tables, give new ids their keys, find out which
listens are new and their ties, append them straight into the tables, note how far we got. Whatever
stops an import, whole chunks are stored; running it again goes through the source from its start,
finds the stored listens known and goes on. Nothing depends on where chunks are cut.

Order matters for speed: rows arrive at the indexes sorted, only distinct ids are looked up, and of
the stored listens only those are read that the chunk could repeat.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import sqlalchemy
from adbc_driver_manager.dbapi import Connection
from adbc_driver_manager.dbapi import Error as AdbcError

from musicrec.database.engine import Dataset
from musicrec.errors import DatabaseError, DataError
from musicrec.interactions.schema import ListenBatch
from musicrec.interactions.source import Source
from musicrec.sources.chunk import Chunk
from musicrec.sources.ledger import Entry, Ledger
from musicrec.sources.storage import Storage, Stored

#: Rows (listens, rejects and track metadata) of one transaction; two chunks are held at a time.
CHUNK_ROWS = 1_500_000


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an import got; ``bytes_read`` of ``total_bytes`` of the source as stored."""

    bytes_read: int
    total_bytes: int
    rows_read: int
    rows_committed: int


@dataclass(frozen=True, slots=True)
class ImportSummary:
    """What one run of an import did: ``rows_read = rows_added + rows_known + rows_rejected``.

    Attributes:
        source: the place, as the source describes it.
        rows_known: listens that were stored already or repeat an earlier line.
        reasons: rejected rows by reason, and single values that were dropped.
    """

    source: str
    rows_read: int
    rows_added: int
    rows_known: int
    rows_rejected: int
    users_added: int
    tracks_added: int
    seconds: float
    reasons: dict[str, int]


def import_source(
    dataset: Dataset,
    source: Source,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    chunk_rows: int = CHUNK_ROWS,
) -> ImportSummary:
    """Store a source's listens; importing twice changes nothing.

    A source that was imported to its end is not read again while nothing in the dataset has
    changed since (``data_changes`` tells). Otherwise every row of it is verified against what is
    stored, and what is missing comes back.

    Args:
        dataset: where to.
        source: what; read on a thread of its own, a chunk ahead of the database.
        on_progress: called after every batch read (on that thread) and every chunk committed.
        chunk_rows: rows of one transaction, at least.

    Raises:
        DataError: the source cannot be read, or does not belong into this dataset.
        DatabaseError: the server is lost or refuses.
        KeyboardInterrupt: as it came. Each of these, once a chunk was committed, says so.
    """
    run = _Run(dataset, source, on_progress or (lambda progress: None), chunk_rows)
    try:
        return run.go()
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"import stopped; {run.committed()}") from None
    except DataError as error:
        if not run.rows_committed:
            raise
        raise DataError(f"{error}; {run.committed()}") from error
    except (AdbcError, OSError, sqlalchemy.exc.DBAPIError) as error:
        raise DatabaseError(f"{_failure(dataset, error)}; {run.committed()}") from error


def _failure(dataset: Dataset, error: AdbcError | OSError | sqlalchemy.exc.DBAPIError) -> str:
    # SQLAlchemy wraps psycopg's error in the statement and a link.
    error = getattr(error, "orig", None) or error
    state = getattr(error, "sqlstate", None) or ""
    if state and not state.startswith(("08", "57")):
        reason = " ".join(str(error).split())
        return f"Postgres at {dataset.address.place} refused the import: {reason}"
    # ADBC raises a plain OSError for a connection that breaks in the middle of a result.
    return str(dataset.address.failure(error))


class _Run:
    """One import under way."""

    def __init__(
        self,
        dataset: Dataset,
        source: Source,
        on_progress: Callable[[Progress], None],
        chunk_rows: int,
    ) -> None:
        self._started = time.monotonic()
        self._dataset = dataset
        self._source = source
        self._on_progress = on_progress
        self._chunk_rows = chunk_rows
        self._ledger = Ledger(dataset, source)
        self._storage = Storage(source.name, self._ledger.fingerprint)
        self._total_bytes = source.total_bytes()
        self._bytes_read = 0
        self._rows_read = 0
        self._last_line = 0
        self._counts: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()

    def go(self) -> ImportSummary:
        with closing(self._dataset.adbc()) as connection:
            with connection.cursor() as cursor:
                self._ledger.enter(cursor)
                self._ledger.check(cursor)
                entry = self._ledger.entry(cursor)
                if entry is not None and entry.is_unchanged:
                    return self._nothing_to_do(entry, self._ledger.reasons(cursor))
            connection.commit()
            if entry is not None:
                # Where all is known, reading is most of the work: small chunks overlap it better.
                self._chunk_rows = max(1, self._chunk_rows // 4)
            with closing(self._chunks()) as chunks:
                for chunk in chunks:
                    self._store(connection, chunk)
            if self._counts["rows_added"] or entry is None:
                self._vacuum()
            with connection.cursor() as cursor:
                self._ledger.finish(cursor)
            connection.commit()
        return self._summary()

    def _nothing_to_do(self, entry: Entry, reasons: dict[str, int]) -> ImportSummary:
        """The same source into the same data: reading it again could change nothing."""
        self._counts = Counter(
            rows_read=entry.listens + entry.rejected,
            rows_known=entry.listens,
            rows_rejected=entry.rejected,
        )
        self._reasons = Counter(reasons)
        return self._summary()

    @property
    def rows_committed(self) -> int:
        """Rows of the source, stored, known or rejected, in committed chunks."""
        return self._counts["rows_read"]

    def committed(self) -> str:
        """What is stored by now, and how to go on."""
        if not self.rows_committed:
            return "nothing of it was committed"
        return (
            f"the first {self.rows_committed:,} rows of {self._source.describe()} (up to line "
            f"{self._last_line:,}) are committed; run the same import again to go on"
        )

    def _chunks(self) -> Generator[Chunk, None, None]:
        """The source's chunks; the next one is read while the caller stores the last one."""
        stopping = threading.Event()
        batches = self._batches(stopping)
        with ThreadPoolExecutor(1, "import") as reader:
            try:
                pending = reader.submit(self._read_chunk, batches)
                while (chunk := pending.result()) is not None:
                    pending = reader.submit(self._read_chunk, batches)
                    yield chunk
            finally:
                stopping.set()

    def _batches(self, stopping: threading.Event) -> Iterator[ListenBatch]:
        try:
            for batch in self._source.batches():
                if stopping.is_set():
                    return
                self._rows_read += len(batch.listens) + len(batch.rejected)
                self._bytes_read = batch.bytes_read
                self._report()
                yield batch
        except OSError as error:
            raise DataError(f"cannot read {self._source.describe()}: {error}") from error

    def _read_chunk(self, batches: Iterator[ListenBatch]) -> Chunk | None:
        collected: list[ListenBatch] = []
        rows = 0
        for batch in batches:
            collected.append(batch)
            rows += len(batch.listens) + len(batch.tracks) + len(batch.rejected)
            if rows >= self._chunk_rows:
                break
        return Chunk.of(collected) if collected else None

    def _report(self) -> None:
        self._on_progress(
            Progress(self._bytes_read, self._total_bytes, self._rows_read, self.rows_committed)
        )

    def _store(self, connection: Connection, chunk: Chunk) -> None:
        """One transaction: all of a chunk, or nothing."""
        with connection.cursor() as cursor:
            stored = self._storage.add(cursor, chunk)
            self._ledger.claim(cursor)
            counts = self._counts + _counts(stored)
            self._ledger.note(
                cursor,
                last_line=chunk.last_line,
                rows_added=stored.rows_added,
                listens=counts["rows_added"] + counts["rows_known"],
                rejected=counts["rows_rejected"],
            )
            self._ledger.own(cursor)
        connection.commit()
        self._counts = counts
        self._reasons += stored.chunk.reasons() + stored.chunk.dropped
        self._last_line = chunk.last_line
        self._report()

    def _vacuum(self) -> None:
        """Mark the pages all-visible: without it the covering index does not cover."""
        engine = self._dataset.engine.execution_options(isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text("VACUUM (ANALYZE) interactions"))
            connection.execute(sqlalchemy.text("ANALYZE users, tracks"))

    def _summary(self) -> ImportSummary:
        return ImportSummary(
            source=self._source.describe(),
            **{name: self._counts[name] for name in _COUNTS},
            seconds=time.monotonic() - self._started,
            reasons=dict(self._reasons.most_common()),
        )


_COUNTS = ("rows_read", "rows_added", "rows_known", "rows_rejected", "users_added", "tracks_added")


def _counts(stored: Stored) -> Counter[str]:
    return Counter(
        rows_read=stored.chunk.rows_read,
        rows_added=stored.rows_added,
        rows_known=stored.rows_known,
        rows_rejected=len(stored.chunk.rejected),
        users_added=stored.users_added,
        tracks_added=stored.tracks_added,
    )
