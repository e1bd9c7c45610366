from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musicrec.database.engine import open_dataset
from musicrec.errors import DatabaseError


@pytest.mark.parametrize(
    "name", ["", "9lives", "Mine", "my-plays", "x" * 49, "a b", 'a"b', "é", "_x", "mine\n"]
)
def test_a_name_that_is_no_plain_identifier_is_refused(name: str) -> None:
    with pytest.raises(DatabaseError, match="is no legal name") as caught:
        open_dataset(name)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("name", ["public", "information_schema", "pg_catalog", "pg_mine"])
def test_a_name_of_postgres_own_is_refused(name: str) -> None:
    with pytest.raises(DatabaseError, match="is no legal name"):
        open_dataset(name)


@given(st.text().filter(lambda name: not re.fullmatch(r"[a-z][a-z0-9_]{0,47}", name)))
def test_the_refusal_proposes_a_legal_name(name: str) -> None:
    with pytest.raises(DatabaseError) as caught:
        open_dataset(name)
    proposed = str(caught.value).rsplit("for example ", 1)[1].strip("'")
    assert re.fullmatch(r"[a-z][a-z0-9_]{0,47}", proposed)
    assert not re.fullmatch(r"public|information_schema|pg_.*", proposed)
