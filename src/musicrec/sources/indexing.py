"""The indexes of an empty table, built once the first chunk is in it.

Keeping indexes up row by row is most of what an import costs; building them from sorted rows
costs a third of that. All of it happens in the transaction of the chunk, so whatever stops the
import, the indexes are there: those from before on a table that is still empty, or new ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from adbc_driver_manager.dbapi import Cursor

#: How to drop and how to make again each index of a table, constraints as what they are. None
#: for a table that foreign keys point to, or for a role that may write it but does not own it.
_DEFINITIONS = """
SELECT
  CASE WHEN c.oid IS NULL THEN format('DROP INDEX %s', i.indexrelid::regclass)
       ELSE format('ALTER TABLE %s DROP CONSTRAINT %I', t.oid::regclass, c.conname) END,
  CASE WHEN c.oid IS NULL THEN pg_get_indexdef(i.indexrelid)
       ELSE format('ALTER TABLE %s ADD CONSTRAINT %I %s', t.oid::regclass, c.conname,
                   pg_get_constraintdef(c.oid)) END
FROM pg_index AS i
JOIN pg_class AS t ON t.oid = i.indrelid
LEFT JOIN pg_constraint AS c ON c.conindid = i.indexrelid AND c.contype IN ('p', 'u')
WHERE t.oid = $1::regclass AND pg_has_role(t.relowner, 'USAGE')
  AND NOT EXISTS (SELECT FROM pg_constraint AS f WHERE f.confrelid = t.oid)
ORDER BY c.oid
"""

# In a block of its own: ADBC lets no transaction go on after an error that reached the client.
_TRY_LOCK = """
DO $$ BEGIN
  LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE NOWAIT;
EXCEPTION WHEN lock_not_available THEN NULL;
END $$
"""


@contextmanager
def indexes_afterwards(cursor: Cursor, table: str) -> Iterator[None]:
    """Let the body fill ``table`` without its indexes, if the table is empty.

    Otherwise, and where somebody reads the table in an open transaction, the indexes stay as they
    are and the body is only slower. ``table`` is one of ours and needs no quotes.
    """
    definitions = []
    if _is_empty(cursor, table) and _is_ours(cursor, table):
        cursor.execute(_DEFINITIONS, parameters=(table,))
        definitions = cursor.fetchall()
    for drop, _ in definitions:
        cursor.execute(drop)
    yield
    for _, create in definitions:
        cursor.execute(create)


def _is_empty(cursor: Cursor, table: str) -> bool:
    cursor.execute(f"SELECT FROM {table} LIMIT 1")
    return cursor.fetchone() is None


def _is_ours(cursor: Cursor, table: str) -> bool:
    """Take the table for this transaction alone, readers included, unless that means waiting."""
    cursor.execute(_TRY_LOCK.format(table=table))
    cursor.execute(
        "SELECT FROM pg_locks WHERE pid = pg_backend_pid() AND granted "
        "AND relation = $1::regclass AND mode = 'AccessExclusiveLock'",
        parameters=(table,),
    )
    return cursor.fetchone() is not None
