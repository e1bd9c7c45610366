from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from musicrec.database.address import Address, address
from musicrec.errors import DatabaseError

SECRET = "s3cr3t"


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Address]:
    def read(url: str) -> Address:
        monkeypatch.setenv("DATABASE_URL", url)
        return address()

    return read


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_usual_scheme_is_taken(read: Callable[[str], Address], scheme: str) -> None:
    parameters = read(f"{scheme}://me@example.org:6543/listens").parameters
    assert parameters["host"] == "example.org"
    assert parameters["port"] == "6543"
    assert parameters["dbname"] == "listens"


@pytest.mark.parametrize("url", ["mysql://me@host/db", "sqlite:///x.db", "me:s3cr3t@host/db"])
def test_another_scheme_is_refused(read: Callable[[str], Address], url: str) -> None:
    with pytest.raises(DatabaseError, match=r"DATABASE_URL .*postgresql://user:password@host"):
        read(url)


@pytest.mark.parametrize(
    "password",
    ["s3@cr3t", "s3/cr3t", "s3:cr3t/more", "s3%cr3t", "s3#cr3t@", "@/s3cr3t"],
)
def test_a_password_that_was_not_escaped_is_not_quoted_back(
    read: Callable[[str], Address], password: str
) -> None:
    with pytest.raises(DatabaseError, match="%40") as caught:
        read(f"postgresql://me:{password}@example.org/listens")
    assert "cr3t" not in str(caught.value)


def test_the_repr_keeps_the_password(read: Callable[[str], Address]) -> None:
    assert SECRET not in repr(read(f"postgresql://me:{SECRET}@example.org/listens"))


def test_a_failure_is_one_line_without_the_password(read: Callable[[str], Address]) -> None:
    place = read(f"postgresql://me:{SECRET}@example.org/listens")
    message = str(place.failure(OSError(f"no way\n\tin with {SECRET}")))
    assert message.startswith("no connection to Postgres at example.org:5432/listens: no way in")
    assert SECRET not in message
    assert "\n" not in message


def test_a_server_that_does_not_answer_is_given_up(read: Callable[[str], Address]) -> None:
    assert int(read("postgresql://example.org/listens").parameters["connect_timeout"]) > 0


def test_the_urls_own_settings_win(read: Callable[[str], Address]) -> None:
    parameters = read("postgresql://example.org/x?connect_timeout=3&sslmode=require").parameters
    assert parameters["connect_timeout"] == "3"
    assert parameters["sslmode"] == "require"


@given(host=st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1))
@settings(deadline=None)
def test_any_socket_folder_survives_the_way_to_libpq(host: str) -> None:
    place = Address("here", False, {"host": f"/{host}", "dbname": "x"})
    assert conninfo_to_dict(place.conninfo())["host"] == f"/{host}"


def test_an_escaped_password_is_read(read: Callable[[str], Address]) -> None:
    parameters = read("postgresql://me:s3%40%2F%3A%3F%23%25@example.org/listens").parameters
    assert parameters["password"] == "s3@/:?#%"
