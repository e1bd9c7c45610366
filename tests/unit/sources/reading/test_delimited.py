"""Text tables: what is a record, what is broken, and that nothing in between is lost."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from musicrec.errors import ConfigError, DataError
from musicrec.sources.reading import files
from musicrec.sources.reading.delimited import LONGEST_RECORD_LINES, delimited_rows
from musicrec.sources.reading.dialect import Dialect, guess_dialect

NAMES = ("a", "b", "c")
TYPES = dict.fromkeys(NAMES, pa.string())


def read(path: Path, content: bytes, dialect: Dialect | None = None, **said: Any) -> dict[str, Any]:
    """Rows with their lines, and the broken lines, of a whole file."""
    path.write_bytes(content)
    dialect = dialect or guess_dialect(path, NAMES, **said)
    rows, broken = [], []
    for stretch in delimited_rows(path, dialect, TYPES):
        values = [tuple(row.values()) for row in stretch.columns.to_pylist()]
        rows += list(zip(stretch.lines.tolist(), values, strict=True))
        broken += [(row.line, row.reason) for row in stretch.broken]
    return {"rows": rows, "broken": sorted(broken)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "table.csv"


def test_a_quoted_value_may_hold_separators_and_line_breaks(path: Path) -> None:
    found = read(path, b'a,b,c\n1,"x,\ny ""z""",3\n4,5,6\n')
    assert found["rows"] == [(2, ("1", 'x,\ny "z"', "3")), (4, ("4", "5", "6"))]
    assert found["broken"] == []


def test_a_mark_and_windows_line_ends_are_no_part_of_the_values(path: Path) -> None:
    found = read(path, b"\xef\xbb\xbfa,b,c\r\n1,2,3\r\n4,5,6")
    assert found["rows"] == [(2, ("1", "2", "3")), (3, ("4", "5", "6"))]


def test_old_macintosh_line_ends_are_line_ends(path: Path) -> None:
    assert read(path, b"a,b,c\r1,2,3\r4,5,6\r")["rows"][1] == (3, ("4", "5", "6"))


def test_blank_lines_count_but_are_no_rows(path: Path) -> None:
    found = read(path, b"\na,b,c\n\n1,2,3\n   \n4,5,6\n\n")
    assert found == {"rows": [(4, ("1", "2", "3")), (6, ("4", "5", "6"))], "broken": []}


def test_a_wrong_number_of_columns_breaks_one_row(path: Path) -> None:
    found = read(path, b"a,b,c\n1,2\n1,2,3\n1,2,3,4\n")
    assert found["rows"] == [(3, ("1", "2", "3"))]
    assert found["broken"] == [
        (2, "2 columns instead of 3"),
        (4, "4 columns instead of 3"),
    ]


def test_a_quote_that_never_closes_costs_its_own_line_only(path: Path) -> None:
    found = read(path, b'a,b,c\n1,"2,3\n4,5,6\n7,"8",9\n')
    assert found["rows"] == [(3, ("4", "5", "6")), (4, ("7", "8", "9"))]
    assert found["broken"] == [(2, "a quote opens on this line and never closes")]


def test_an_open_quote_on_the_last_line_is_broken(path: Path) -> None:
    assert read(path, b'a,b,c\n1,2,3\n4,5,"6')["broken"][0][0] == 3


def test_a_quote_within_a_bare_value_is_a_character(path: Path) -> None:
    assert read(path, b'a,b,c\n1,12" mix,3\n')["rows"] == [(2, ("1", '12" mix', "3"))]


def test_without_quoting_a_quote_is_a_character(path: Path) -> None:
    found = read(path, b'a,b,c\n1,"Heroes",3\n1,"Weird,3\n', quoting=False)
    assert [row[1][1] for row in found["rows"]] == ['"Heroes"', '"Weird']


def test_bytes_that_are_no_text_cost_their_own_line_only(path: Path) -> None:
    found = read(path, b"a,b,c\n1,2,3\n\xff,2,3\n1,\0,3\n4,5,6\n")
    assert [line for line, _ in found["rows"]] == [2, 5]
    assert found["broken"] == [
        (3, "bytes that are not UTF-8"),
        (4, "a NUL byte, which no text can hold"),
    ]


def test_another_encoding_is_read_when_named(path: Path) -> None:
    content = "a,b,c\n1,Björk,3\n".encode("latin-1")
    assert read(path, content, encoding="latin-1")["rows"][0][1][1] == "Björk"


def test_an_encoding_whose_lines_cannot_be_cut_is_refused() -> None:
    from musicrec.sources.reading.tabular import TableFile

    with pytest.raises(ConfigError, match="utf-16"):
        TableFile(Path("x.csv"), encoding="utf-16")


def test_empty_values_are_missing(path: Path) -> None:
    assert read(path, b'a,b,c\n,\\N,""\n')["rows"] == [(2, (None, None, None))]


def test_a_separator_of_several_characters_is_kept_in_the_raw_text(path: Path) -> None:
    path.write_bytes(b"1::Up: a film::3\n1::2\n")
    dialect = Dialect("::", NAMES, 0, quoting=False)
    (stretch,) = delimited_rows(path, dialect, TYPES)
    assert stretch.columns.to_pylist()[0]["b"] == "Up: a film"
    assert stretch.raw(0) == "1::Up: a film::3"
    assert stretch.broken[0].raw == "1::2"


@pytest.mark.parametrize(
    ("first", "separator"),
    [("a,b,c", ","), ("a\tb\tc", "\t"), ("a;b;c", ";"), ("a|b|c", "|"), ("a::b::c", "::")],
)
def test_the_separator_is_found_in_the_header(path: Path, first: str, separator: str) -> None:
    path.write_text(f"{first}\n")
    assert guess_dialect(path, NAMES).separator == separator


def test_the_separator_that_gives_the_wanted_columns_beats_a_frequent_one(path: Path) -> None:
    path.write_text('a;"b";c;x,y,z,w,v,u\n')
    assert guess_dialect(path, NAMES).separator == ";"


def test_a_column_that_is_not_there_is_named_with_the_nearest(path: Path) -> None:
    path.write_text("user_id,song,ts\n")
    with pytest.raises(DataError, match=r"no column 'userid' \(did you mean 'user_id'\?\)"):
        guess_dialect(path, ["userid"])


def test_a_column_named_twice_is_refused(path: Path) -> None:
    path.write_text("a,b,a\n")
    with pytest.raises(DataError, match="2 columns named 'a'"):
        guess_dialect(path, ["a"])


def test_a_wrong_separator_is_answered_with_the_right_one(path: Path) -> None:
    path.write_text("a;b;c\n1;2;3\n")
    with pytest.raises(DataError, match=r"only one column .*say data.separator=';'"):
        guess_dialect(path, NAMES, separator=",")


def test_a_record_over_many_lines_is_a_slip(path: Path) -> None:
    lines = "x\n" * LONGEST_RECORD_LINES
    found = read(path, f'a,b,c\n1,"{lines}",3\n4,5,6\n'.encode())
    assert found["broken"][0] == (2, "a quote opens on this line and never closes")
    assert found["rows"][-1][1] == ("4", "5", "6")


VALUES = st.text(st.sampled_from('ab",\n é'), max_size=5).map(str.strip)
ROWS = st.lists(st.tuples(VALUES, VALUES, VALUES), min_size=1, max_size=12)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=ROWS, lines=st.integers(1, 4))
def test_what_csv_writes_is_read_back_wherever_the_file_is_cut(
    path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[tuple[str, ...]], lines: int
) -> None:
    monkeypatch.setattr(files, "STRETCH_LINES", lines)
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerows([NAMES, *rows])
    found = read(path, written.getvalue().encode())
    assert [row for _, row in found["rows"]] == [
        tuple(value or None for value in row) for row in rows
    ]
    assert found["broken"] == []


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(content=st.text(st.sampled_from('ab",\n'), max_size=60))
def test_every_line_is_a_row_or_broken_or_within_a_record(path: Path, content: str) -> None:
    found = read(path, b"a,b,c\n" + content.encode())
    seen = [line for line, _ in found["rows"] + found["broken"]]
    assert len(seen) == len(set(seen))
    lines = content.split("\n")
    for number, line in enumerate(lines, start=2):
        if line.strip() and '"' not in content:
            assert number in seen
