from __future__ import annotations

import pytest

from musicrec.database.cluster import last_words


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            "2026-01-01 UTC [1] LOG:  starting\n2026-01-01 UTC [1] FATAL:  no space\n"
            "2026-01-01 UTC [1] LOG:  database system is shut down\n",
            "no space",
        ),
        ("creating…\ninitdb: error: could not\ninitdb: removing contents\n", "could not"),
        ("something else\n", "something else"),
        ("", "it said nothing"),
    ],
)
def test_the_line_that_says_why_is_found(said: str, words: str) -> None:
    assert last_words(said) == words
