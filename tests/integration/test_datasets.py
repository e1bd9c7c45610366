"""Datasets over a real server: opened, made, listed, dropped; and what is said when they cannot."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest
import sqlalchemy as sa

from conftest import ROOT
from musicrec.database import engine
from musicrec.database.address import Address, address
from musicrec.database.engine import Dataset, dataset_names, drop_dataset, open_dataset
from musicrec.errors import DatabaseError

pytestmark = pytest.mark.slow

SECRET = "cor/rect@horse"


@pytest.fixture
def server(postgres: str | None) -> Address:
    return address()


@pytest.fixture
def new_name(postgres: str | None) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex[:16]}"
    yield name
    with address().connect() as connection:
        connection.execute(f"DROP SCHEMA IF EXISTS {name} CASCADE")


def url_of(server: Address, **changes: str) -> str:
    """``DATABASE_URL`` for ``server``, everything in its query, percent-quoted."""
    parameters = {**server.parameters, **changes}
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in parameters.items())
    return f"postgresql://?{query}"


def session_settings(dataset: Dataset) -> tuple[object, ...]:
    query = "SELECT current_setting('search_path'), current_setting('TimeZone'), current_schema()"
    with dataset.engine.connect() as connection:
        return tuple(connection.execute(sa.text(query)).one())


def test_every_connection_sees_the_dataset_alone_and_speaks_utc(dataset: Dataset) -> None:
    assert session_settings(dataset) == (dataset.name, "UTC", dataset.name)


def test_an_adbc_connection_sees_the_dataset_alone_and_speaks_utc(dataset: Dataset) -> None:
    with dataset.adbc() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('search_path'), current_setting('TimeZone')")
        assert cursor.fetchone() == (dataset.name, "UTC")


def test_an_adbc_connection_commits_only_when_told(dataset: Dataset) -> None:
    with dataset.adbc() as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO users (user_id) VALUES ('a')")
    with dataset.engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM users")) == 0


def test_opening_again_finds_what_was_stored(dataset: Dataset) -> None:
    with dataset.engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO users (user_id) VALUES ('a')"))
    with open_dataset(dataset.name) as again, again.engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT user_id FROM users")) == "a"


def test_opening_again_does_without_alembic(dataset: Dataset) -> None:
    code = (
        "import sys; from musicrec.database.engine import open_dataset;"
        f"open_dataset({dataset.name!r}); sys.exit('alembic' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


def test_two_that_make_it_at_once_make_it_once(new_name: str) -> None:
    barrier = threading.Barrier(2)

    def make() -> object:
        barrier.wait()
        with open_dataset(new_name, create=True) as opened, opened.engine.connect() as connection:
            return connection.scalar(sa.text("SELECT dataset_id FROM dataset_info"))

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.submit(make), pool.submit(make)
    assert first.result() == second.result()


def test_a_name_that_is_a_word_of_sql_is_a_name_like_others(postgres: str | None) -> None:
    try:
        with open_dataset("user", create=True) as opened:
            assert session_settings(opened)[2] == "user"
    finally:
        drop_dataset("user")


def test_the_names_are_those_of_datasets_alone(dataset: Dataset, new_name: str) -> None:
    with dataset.address.connect() as connection:
        connection.execute(f"CREATE SCHEMA {new_name}")
    assert dataset.name in dataset_names()
    assert new_name not in dataset_names()


def test_a_dropped_dataset_is_gone(new_name: str) -> None:
    open_dataset(new_name, create=True).close()
    drop_dataset(new_name)
    assert new_name not in dataset_names()


def test_dropping_what_is_in_use_gives_up_in_one_line(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "DROP_SECONDS", 0.2)
    with dataset.engine.begin() as connection:
        connection.execute(sa.text("LOCK TABLE users"))
        with pytest.raises(DatabaseError, match=f"cannot drop dataset '{dataset.name}'.*lock"):
            drop_dataset(dataset.name)


def test_a_missing_dataset_names_those_there_are(dataset: Dataset, new_name: str) -> None:
    with pytest.raises(DatabaseError, match=f"no dataset '{new_name}'.*{dataset.name}") as caught:
        open_dataset(new_name)
    assert f"import_interactions.py data=… dataset={new_name}" in str(caught.value)


def test_a_schema_of_others_is_left_alone(dataset: Dataset, new_name: str) -> None:
    with dataset.address.connect() as connection:
        connection.execute(f"CREATE SCHEMA {new_name}")
        connection.execute(f"CREATE TABLE {new_name}.invoices (id int)")
    with pytest.raises(DatabaseError, match="not musicrec's, such as 'invoices'"):
        open_dataset(new_name, create=True)


def test_a_dataset_of_a_newer_musicrec_is_refused(dataset: Dataset) -> None:
    with dataset.engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseError, match=r"is at revision 9999.*update musicrec"):
        open_dataset(dataset.name)


def test_a_lost_connection_is_replaced(dataset: Dataset) -> None:
    with dataset.engine.connect() as connection:
        pid = connection.scalar(sa.text("SELECT pg_backend_pid()"))
    with dataset.address.connect() as other:
        other.execute("SELECT pg_terminate_backend(%s)", (pid,))
    assert session_settings(dataset)[0] == dataset.name


@pytest.fixture
def no_embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that stays empty as long as nothing starts the embedded server."""
    monkeypatch.setenv("MUSICREC_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_with_database_url_nothing_is_started(
    server: Address, new_name: str, no_embedded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("DATABASE_URL", url_of(server))
        open_dataset(new_name, create=True).close()
        assert new_name in dataset_names()
        drop_dataset(new_name)
    assert not no_embedded.exists()


def test_the_socket_of_database_url_may_lie_in_a_folder_with_spaces(
    server: Address, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not server.is_embedded:
        pytest.skip("MUSICREC_TEST_DATABASE_URL names a server whose socket is not ours to move")
    folder = tmp_path.parent / f"s {uuid.uuid4().hex[:4]} +%"
    folder.symlink_to(server.parameters["host"])
    with monkeypatch.context() as patch:
        patch.setenv("DATABASE_URL", url_of(server, host=str(folder)))
        with open_dataset(dataset.name) as opened, opened.adbc() as connection:
            assert session_settings(opened)[0] == dataset.name
            with connection.cursor() as cursor:
                cursor.execute("SELECT current_schema()")
                assert cursor.fetchone() == (dataset.name,)


@pytest.fixture
def role(server: Address) -> Iterator[str]:
    """A role that may log in, and do nothing else."""
    name = f"role_{uuid.uuid4().hex[:16]}"
    with server.connect() as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{SECRET}'")
    yield name
    with server.connect() as connection:
        connection.execute(f"DROP OWNED BY {name}")
        connection.execute(f"DROP ROLE {name}")


def test_a_role_that_may_not_make_schemas_is_told(
    server: Address, role: str, new_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("DATABASE_URL", url_of(server, user=role, password=SECRET))
        with pytest.raises(DatabaseError, match="permission denied for database") as caught:
            open_dataset(new_name, create=True)
    assert SECRET not in str(caught.value)


def test_a_role_without_further_rights_may_own_datasets(
    server: Address, role: str, new_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server.connect() as connection:
        database = connection.info.dbname
        connection.execute(f"GRANT CREATE ON DATABASE {database} TO {role}")
    with monkeypatch.context() as patch:
        patch.setenv("DATABASE_URL", url_of(server, user=role, password=SECRET))
        with open_dataset(new_name, create=True) as opened, opened.adbc() as connection:
            with connection.cursor() as cursor:
                cursor.execute("INSERT INTO tracks (track_id) VALUES ('a')")
            connection.commit()
        drop_dataset(new_name)


def refusing_port() -> Iterator[int]:
    """A port where nobody listens: bound, so that nobody else takes it meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def hanging_up_port() -> Iterator[int]:
    """A port where whoever calls is cut off at once."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def hang_up() -> None:
            while True:
                try:
                    listening.accept()[0].close()
                except OSError:
                    return

        threading.Thread(target=hang_up, daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)


@pytest.fixture(params=[refusing_port, hanging_up_port])
def broken_port(request: pytest.FixtureRequest) -> Iterator[int]:
    yield from request.param()


def test_a_server_that_cannot_be_reached_is_one_line_with_its_place(
    broken_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = quote(SECRET, safe="")
    monkeypatch.setenv("DATABASE_URL", f"postgres://me:{secret}@127.0.0.1:{broken_port}/listens")
    with pytest.raises(DatabaseError) as caught:
        open_dataset("mine")
    message = str(caught.value)
    assert f"at 127.0.0.1:{broken_port}/listens" in message
    assert "unset it to use the embedded server" in message
    assert "\n" not in message
    assert SECRET not in message
    assert secret not in message


def test_a_connection_that_cannot_be_made_later_is_one_line_too(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = Dataset(
        dataset.name,
        dataset.engine,
        Address("127.0.0.1:1/gone", False, {"host": "127.0.0.1", "port": "1"}),
    )
    with pytest.raises(DatabaseError, match=r"no connection to Postgres at 127\.0\.0\.1:1/gone"):
        gone.adbc()
