"""One chunk into the tables, within a transaction that the caller opens and commits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from adbc_driver_manager.dbapi import Cursor

from musicrec.sources import metadata
from musicrec.sources.chunk import Chunk
from musicrec.sources.indexing import indexes_afterwards
from musicrec.sources.keys import Ints, KeyMap
from musicrec.sources.moments import LAST_TIE, Moments, Placement, StoredListens, place

TOO_MANY_AT_ONCE = f"more than {LAST_TIE + 1:,} plays of one user at one time"


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of a chunk.

    Attributes:
        chunk: as given, with the rows that were refused on the way among its rejects.
        rows_known: listens that were stored already or repeat an earlier line.
    """

    chunk: Chunk
    rows_added: int
    rows_known: int
    users_added: int
    tracks_added: int


class Storage:
    """The tables of a dataset as one importer writes them."""

    def __init__(self, format_name: str, fingerprint: str) -> None:
        """``format_name`` and ``fingerprint`` are the source's; they mark its rows."""
        self._format = format_name
        self._fingerprint = fingerprint
        self._users = KeyMap("user")
        self._tracks = KeyMap("track")

    def add(self, cursor: Cursor, chunk: Chunk) -> Stored:
        """Store what is new; the transaction is this importer's alone until its end."""
        # Readers go on; every other writer waits, so that keys, ties and repeats stay true.
        cursor.execute("LOCK TABLE users, tracks, interactions IN SHARE ROW EXCLUSIVE MODE")
        self._users.refresh(cursor)
        self._tracks.refresh(cursor)
        last_user_before = self._users.last_key
        user_of, users_added = self._user_keys(cursor, chunk)
        track_of, tracks_added = self._track_keys(cursor, chunk)
        user_key = user_of[chunk.users.code]
        track_key = track_of[chunk.tracks.code[: len(chunk.listens)]]
        if not (user_key.all() and track_key.all()):
            raise AssertionError("a listen was left without its user's or its track's key")
        occurred_at = chunk.listens["occurred_at"].cast(pa.int64()).to_numpy()
        moments = Moments(user_key, occurred_at)
        placement = place(moments, track_key, _stored(cursor, moments, last_user_before))
        self._append(cursor, chunk.listens, user_key, track_key, placement)
        if len(placement.refused):
            chunk = chunk.refuse(placement.refused, TOO_MANY_AT_ONCE)
        self._append_rejects(cursor, chunk.rejected)
        return Stored(chunk, len(placement.rows), placement.num_known, users_added, tracks_added)

    def _user_keys(self, cursor: Cursor, chunk: Chunk) -> tuple[Ints, int]:
        """The key of each distinct user of the chunk, and how many are new."""
        keys = self._users.keys_of(chunk.users.distinct)
        new = chunk.users.appearing(keys == 0)
        keys[new] = self._users.add(cursor, chunk.users.distinct.take(pa.array(new)))
        return keys, len(new)

    def _track_keys(self, cursor: Cursor, chunk: Chunk) -> tuple[Ints, int]:
        """The key of each distinct track of the chunk, and how many are new."""
        keys = self._tracks.keys_of(chunk.tracks.distinct)
        of_metadata = chunk.tracks.code[len(chunk.listens) :]
        said = metadata.first_said(chunk.metadata, of_metadata, len(keys))
        known = np.unique(of_metadata[keys[of_metadata] > 0])
        if len(known):
            metadata.fill(cursor, keys[known], said.take(pa.array(known)))
        new = chunk.tracks.appearing(keys == 0)
        ids = chunk.tracks.distinct.take(pa.array(new))
        keys[new] = self._tracks.add(cursor, ids, said.take(pa.array(new)))
        return keys, len(new)

    def _append(
        self,
        cursor: Cursor,
        listens: pa.Table,
        user_key: Ints,
        track_key: Ints,
        placement: Placement,
    ) -> None:
        rows = placement.rows
        # Not even an empty statement: it would count as a change of the data.
        if len(rows) == 0:
            return
        columns = {
            "user_key": user_key[rows],
            "track_key": track_key[rows],
            "tie": placement.tie,
            "source": pa.repeat(self._format, len(rows)),
        }
        for name in ("occurred_at", "ms_played", "skipped", "device"):
            columns[name] = listens[name].combine_chunks().take(pa.array(rows))
        with indexes_afterwards(cursor, "interactions"):
            cursor.adbc_ingest("interactions", pa.table(columns), mode="append")

    def _append_rejects(self, cursor: Cursor, rejected: pa.Table) -> None:
        if len(rejected) == 0:
            return
        cursor.execute("CREATE TEMP TABLE rejects (LIKE rejected_rows) ON COMMIT DROP")
        rows = pa.table(
            {
                "source": pa.repeat(self._fingerprint, len(rejected)),
                "line": rejected["line"],
                "reason": rejected["reason"],
                "raw": metadata.without_nul(rejected["raw"]),
            }
        )
        cursor.adbc_ingest("rejects", rows, mode="append", temporary=True)
        cursor.execute(
            "INSERT INTO rejected_rows (source, line, reason, raw) "
            "SELECT source, line, reason, raw FROM rejects ON CONFLICT DO NOTHING"
        )


def _stored(cursor: Cursor, moments: Moments, last_user: int) -> Iterator[StoredListens]:
    """Stored listens between the first and last time of each user that was known before.

    Args:
        cursor: in the transaction that locked the tables.
        moments: of the chunk.
        last_user: the last key of the users known before the chunk.
    """
    user_key, first_at, last_at = moments.spans()
    known = user_key <= last_user
    if not known.any():
        return
    at = pa.timestamp("us", tz="UTC")
    spans = pa.table(
        {
            "user_key": user_key[known],
            "first_at": pa.array(first_at[known]).cast(at),
            "last_at": pa.array(last_at[known]).cast(at),
        }
    )
    cursor.execute(
        "CREATE TEMP TABLE spans (user_key bigint, first_at timestamptz, last_at timestamptz) "
        "ON COMMIT DROP"
    )
    cursor.adbc_ingest("spans", spans, mode="append", temporary=True)
    # In the middle of an import the planner's statistics are stale; left to itself it may read
    # the whole table for every chunk. The lateral join with OFFSET 0 keeps it to one index probe
    # per user, in the order of the spans.
    cursor.execute("SET LOCAL enable_seqscan = off")
    cursor.execute("SET LOCAL enable_bitmapscan = off")
    cursor.execute("SET LOCAL jit = off")
    cursor.execute(
        "SELECT stored.* FROM spans CROSS JOIN LATERAL ("
        "SELECT user_key, occurred_at, track_key, tie FROM interactions AS i "
        "WHERE i.user_key = spans.user_key AND i.occurred_at BETWEEN first_at AND last_at "
        "OFFSET 0) AS stored"
    )
    for batch in cursor.fetch_record_batch():
        user, time, track, tie = batch.columns
        yield StoredListens(
            user.to_numpy(), time.cast(pa.int64()).to_numpy(), track.to_numpy(), tie.to_numpy()
        )
