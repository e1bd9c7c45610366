"""Outside ids to the surrogate keys of Postgres, in memory.

Only distinct ids are looked up, a chunk at a time. The known ids are streamed past a hash table of
the chunk's ids rather than the other way round, so the table stays as small as the chunk however
many ids there are.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from adbc_driver_manager.dbapi import Cursor

from musicrec.sources.indexing import indexes_afterwards

Ints = npt.NDArray[np.int64]


class KeyMap:
    """The ids and keys of one table (``users`` or ``tracks``), as far as they were read.

    Only trustworthy while the table is locked and ``refresh`` was called after the lock: another
    importer may add ids at any other time.
    """

    def __init__(self, kind: str) -> None:
        """``kind`` is ``"user"`` or ``"track"``: the table is its plural, the columns begin so."""
        self.kind = kind
        self.last_key = 0
        self._last_given = 0
        self._parts: list[tuple[pa.Array, Ints]] = []

    def refresh(self, cursor: Cursor) -> None:
        """Read the ids that were added since the last call, by this importer or another."""
        # The key is ours and a number; as a bound parameter it would cost ADBC its COPY stream.
        cursor.execute(
            f"SELECT {self.kind}_key, {self.kind}_id FROM {self.kind}s "  # noqa: S608
            f"WHERE {self.kind}_key > {self.last_key:d} ORDER BY {self.kind}_key"
        )
        for batch in cursor.fetch_record_batch():
            self._remember(batch.column(1), batch.column(0).to_numpy())
        cursor.execute(
            "SELECT pg_sequence_last_value(pg_get_serial_sequence($1, $2)::regclass)",
            parameters=(f"{self.kind}s", f"{self.kind}_key"),
        )
        # Not only max(key): a key that was given once and deleted must not come back as another.
        ((last_given,),) = cursor.fetchall()
        self._last_given = max(self.last_key, last_given or 0)

    def keys_of(self, ids: pa.Array) -> Ints:
        """The key of each of the distinct ``ids``, 0 where it is not known."""
        keys = np.zeros(len(ids), dtype=np.int64)
        for known_ids, known_keys in self._parts:
            at = pc.index_in(known_ids, value_set=ids)
            found = at.is_valid().to_numpy(zero_copy_only=False)
            keys[at.drop_null().to_numpy()] = known_keys[found]
        return keys

    def add(self, cursor: Cursor, ids: pa.Array, columns: pa.Table | None = None) -> Ints:
        """Store new ``ids`` under the next keys, in the order given, with further ``columns``.

        The identity sequence is moved on, so a plain INSERT without a key never collides.
        """
        keys = np.arange(self._last_given + 1, self._last_given + 1 + len(ids), dtype=np.int64)
        if len(ids) == 0:
            return keys
        rows = pa.table({f"{self.kind}_key": keys, f"{self.kind}_id": ids})
        if columns is not None:
            for name, column in zip(columns.column_names, columns.columns, strict=True):
                rows = rows.append_column(name, column)
        with indexes_afterwards(cursor, f"{self.kind}s"):
            cursor.adbc_ingest(f"{self.kind}s", rows, mode="append")
        cursor.execute(
            "SELECT setval(pg_get_serial_sequence($1, $2)::regclass, $3)",
            parameters=(f"{self.kind}s", f"{self.kind}_key", int(keys[-1])),
        )
        self._remember(ids, keys)
        self._last_given = self.last_key
        return keys

    def _remember(self, ids: pa.Array, keys: Ints) -> None:
        if len(ids):
            self._parts.append((ids, keys))
            self.last_key = int(keys[-1])
