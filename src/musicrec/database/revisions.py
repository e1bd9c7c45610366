"""Which state of the tables a dataset has, and how it gets the newest.

Alembic does the work, and keeps its version table inside the dataset. Looking is done without
it: importing Alembic takes longer than everything else that opening a dataset does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy

from musicrec.database.address import Address
from musicrec.errors import DatabaseError

MIGRATIONS = Path(__file__).resolve().parent / "migrations"
VERSION_TABLE = "alembic_version"  # Alembic's own default


def known() -> list[str]:
    """The revisions this code knows, oldest first: ``versions/0001_listens.py`` is ``0001``."""
    return sorted(path.name[:4] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def current(connection: psycopg.Connection[Any], name: str) -> str | None:
    """The revision of the dataset ``name``; None where there is no dataset yet.

    Raises:
        DatabaseError: a newer musicrec wrote it, or the schema holds what is no dataset.
    """
    tables = {
        row[0]
        for row in connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace(%s)", (name,)
        )
    }
    if not tables:
        return None
    if VERSION_TABLE not in tables:
        raise DatabaseError(
            f"the schema {name!r} holds tables that are not musicrec's, such as "
            f"{min(tables)!r}; choose another dataset name"
        )
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    revision = str(row[0]) if row else None
    if revision not in known():
        raise DatabaseError(
            f"dataset {name!r} is at revision {revision}, and this musicrec knows up to "
            f"{known()[-1]}; update musicrec, or import into another dataset"
        )
    return revision


def upgrade(address: Address, name: str, options: str) -> None:
    """Bring the dataset to the newest revision, making its schema if need be; all or nothing.

    Processes that come at the same moment wait for each other, and find the work done.

    Args:
        address: the server.
        name: of the dataset, legal as an identifier.
        options: libpq's, which put the dataset in the search path.
    """
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://",
        creator=lambda: address.connect(options=options),
        poolclass=sqlalchemy.NullPool,
    )
    with engine.begin() as connection:
        lock = sqlalchemy.text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")
        connection.execute(lock, {"name": f"musicrec migrations of {name}"})
        present = sqlalchemy.text("SELECT to_regnamespace(:name) IS NOT NULL")
        if not connection.scalar(present, {"name": name}):
            connection.execute(sqlalchemy.schema.CreateSchema(name))
        _run_alembic(connection)


def _run_alembic(connection: sqlalchemy.Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    # Alembic's options are interpolated: a % in the path would start a reference.
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
