"""The tables as Postgres has them after the migrations."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.exc import IntegrityError

from musicrec.database import revisions
from musicrec.database.engine import Dataset
from musicrec.database.tables import Table

pytestmark = pytest.mark.slow

LISTEN = {
    "user_key": 1,
    "occurred_at": datetime(2014, 3, 1, tzinfo=UTC),
    "track_key": 1,
    "tie": 0,
    "source": "test",
}

#: Everything a dataset's schema is made of, as Postgres itself writes it.
DESCRIPTIONS = {
    "columns": """
        SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
               a.attidentity, pg_get_expr(d.adbin, d.adrelid), col_description(c.oid, a.attnum)
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
        LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
        WHERE c.relnamespace = :schema ::regnamespace AND c.relkind = 'r' AND a.attnum > 0
          AND c.relname <> 'alembic_version' ORDER BY c.relname, a.attnum""",
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
        FROM pg_constraint WHERE connamespace = :schema ::regnamespace
          AND conrelid::regclass::text <> 'alembic_version' ORDER BY 1, 2""",
    "indexes": """
        SELECT tablename, indexname, replace(indexdef, schemaname || '.', '')
        FROM pg_indexes WHERE schemaname = :schema
          AND tablename <> 'alembic_version' ORDER BY 1, 2""",
}


def listen(dataset: Dataset, **changes: object) -> None:
    row = {**LISTEN, **changes}
    columns = ", ".join(row)
    values = ", ".join(f":{column}" for column in row)
    with dataset.engine.begin() as connection:
        connection.execute(sa.text(f"INSERT INTO interactions ({columns}) VALUES ({values})"), row)


def scalar(dataset: Dataset, query: str) -> object:
    with dataset.engine.connect() as connection:
        return connection.scalar(sa.text(query))


@pytest.fixture
def created(dataset: Dataset) -> Iterator[sa.Connection]:
    """A connection to a schema made from the models instead of the migrations."""
    name = f"{dataset.name}_created"
    with dataset.engine.connect() as connection:
        connection.execute(sa.schema.CreateSchema(name))
        connection.execute(sa.text(f"SET LOCAL search_path = {name}"))
        Table.metadata.create_all(connection)
        yield connection
        connection.rollback()


@pytest.mark.parametrize("kind", DESCRIPTIONS)
def test_the_migrations_build_what_the_models_say(
    dataset: Dataset, created: sa.Connection, kind: str
) -> None:
    query = sa.text(DESCRIPTIONS[kind])
    modelled = created.execute(query, {"schema": f"{dataset.name}_created"}).all()
    with dataset.engine.connect() as connection:
        migrated = connection.execute(query, {"schema": dataset.name}).all()
    assert migrated
    assert sorted(migrated, key=repr) == sorted(modelled, key=repr)


def test_alembic_would_add_nothing_to_the_migrations(dataset: Dataset) -> None:
    options = {"compare_type": True, "compare_server_default": True}
    with dataset.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Table.metadata) == []


def test_the_newest_revision_is_alembics_head() -> None:
    config = Config()
    config.set_main_option("script_location", str(revisions.MIGRATIONS).replace("%", "%%"))
    assert ScriptDirectory.from_config(config).get_heads() == [revisions.known()[-1]]


def test_every_file_of_a_revision_bears_its_name() -> None:
    for path in (revisions.MIGRATIONS / "versions").glob("[0-9]*.py"):
        spec = importlib.util.spec_from_file_location("migration", path)
        assert spec is not None
        assert spec.loader is not None
        migration = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(migration)
        assert path.name.startswith(f"{migration.revision}_")


def test_a_new_dataset_says_that_it_holds_no_times_yet(dataset: Dataset) -> None:
    assert scalar(dataset, "SELECT count(*) FROM dataset_info WHERE timed IS NULL") == 1


def test_there_is_one_row_about_the_dataset_and_no_second(dataset: Dataset) -> None:
    with (
        pytest.raises(IntegrityError, match="dataset_info"),
        dataset.engine.begin() as connection,
    ):
        connection.execute(sa.text("INSERT INTO dataset_info (one) VALUES (false)"))


def test_a_plausible_play_is_taken(dataset: Dataset) -> None:
    listen(dataset)
    assert scalar(dataset, "SELECT count(*) FROM interactions") == 1


def test_the_same_play_twice_is_refused(dataset: Dataset) -> None:
    listen(dataset)
    with pytest.raises(IntegrityError, match="interactions_pkey"):
        listen(dataset, tie=1)


@pytest.mark.parametrize(
    ("changes", "constraint"),
    [
        ({"ms_played": -1}, "interactions_ms_played_not_negative"),
        ({"tie": -1}, "interactions_tie_not_negative"),
        ({"occurred_at": datetime(1969, 12, 31, tzinfo=UTC)}, "interactions_after_1970"),
        ({"occurred_at": "-infinity"}, "interactions_after_1970"),
        ({"occurred_at": "infinity"}, "interactions_not_in_the_future"),
    ],
)
def test_a_nonsensical_play_is_refused(
    dataset: Dataset, changes: dict[str, object], constraint: str
) -> None:
    with pytest.raises(IntegrityError, match=constraint):
        listen(dataset, **changes)


def test_a_play_in_the_future_is_refused(dataset: Dataset) -> None:
    with pytest.raises(IntegrityError, match="interactions_not_in_the_future"):
        listen(dataset, occurred_at=datetime.now(UTC) + timedelta(days=2))


@pytest.mark.parametrize("column", ["energy", "valence", "liveness"])
def test_an_audio_feature_outside_its_range_is_refused(dataset: Dataset, column: str) -> None:
    insert = f"INSERT INTO tracks (track_id, {column}) VALUES ('a', 1.5)"
    with (
        pytest.raises(IntegrityError, match=f"tracks_{column}_unit"),
        dataset.engine.begin() as connection,
    ):
        connection.execute(sa.text(insert))


CHANGES = {
    "insert": "INSERT INTO tracks (track_id) VALUES ('b'), ('c')",
    "update": "UPDATE tracks SET title = 'x'",
    "delete": "DELETE FROM tracks",
    "truncate": "TRUNCATE tracks",
    "copy": "COPY tracks (track_id) FROM STDIN",
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_statement_that_changes_the_data_leaves_one_row(
    dataset: Dataset, change: str
) -> None:
    with dataset.adbc() as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO tracks (track_id) VALUES ('a')")
        connection.commit()
    with dataset.address.connect(options=f"-c search_path={dataset.name}") as session:
        if change == "copy":
            with session.cursor().copy(CHANGES[change]) as copy:
                copy.write("d\ne\n")
        else:
            session.execute(CHANGES[change])
    assert scalar(dataset, "SELECT count(*) FROM data_changes") == 2


def test_a_change_is_noted_under_any_search_path(dataset: Dataset) -> None:
    with dataset.address.connect(options="-c search_path=public") as session:
        session.execute(f"INSERT INTO {dataset.name}.tracks (track_id) VALUES ('a')")
    assert scalar(dataset, "SELECT count(*) FROM data_changes") == 1


def test_a_change_that_is_rolled_back_is_not_noted(dataset: Dataset) -> None:
    with dataset.engine.connect() as connection:
        connection.execute(sa.text("INSERT INTO tracks (track_id) VALUES ('a')"))
        connection.rollback()
    assert scalar(dataset, "SELECT count(*) FROM data_changes") == 0
