"""Run by Alembic around every migration, on the connection that ``revisions.upgrade`` opened."""

from __future__ import annotations

from alembic import context

from musicrec.database.revisions import VERSION_TABLE
from musicrec.database.tables import Table

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Table.metadata,
    version_table=VERSION_TABLE,
)
with context.begin_transaction():
    context.run_migrations()
