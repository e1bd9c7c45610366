"""JSON lines and arrays, read fast where they are regular and carefully where they are not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from musicrec.errors import DataError
from musicrec.sources.reading import files
from musicrec.sources.reading.objects import first_objects, object_rows, types_of

WANTED = {"a": pa.string(), "b.c": pa.float64()}


def read(path: Path, content: bytes) -> tuple[list[Any], list[tuple[int, str]]]:
    """``(line, a, c)`` of every row, as text, and the broken lines."""
    path.write_bytes(content)
    rows: list[Any] = []
    broken: list[tuple[int, str]] = []
    for part in object_rows(path, WANTED):
        columns = part.columns.cast(pa.schema([(name, pa.string()) for name in WANTED]))
        values = columns.to_pylist()
        rows += [
            (line, v["a"], v["b.c"]) for line, v in zip(part.lines.tolist(), values, strict=True)
        ]
        broken += [(row.line, row.reason) for row in part.broken]
    return rows, sorted(broken)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "plays.json"


def test_a_path_reaches_into_objects(path: Path) -> None:
    rows, _ = read(path, b'{"a": "x", "b": {"c": 1.5}, "d": [1]}\n\n{"a": null}')
    assert rows == [(1, "x", "1.5"), (3, None, None)]


def test_a_bad_line_costs_itself_only(path: Path) -> None:
    content = b'{"a": "x"}\n{"a": \n[1]\n{"a": "\xff"}\n{"a": "\\ud800"}\n{"a": "y"}\n'
    rows, broken = read(path, content)
    assert [(line, a) for line, a, _ in rows] == [(1, "x"), (6, "y")]
    assert [line for line, _ in broken] == [2, 3, 4, 5]


def test_two_objects_on_a_line_are_no_row(path: Path) -> None:
    rows, broken = read(path, b'{"a": "x"}{"a": "y"}\n{"a": "z"}\n')
    assert [a for _, a, _ in rows] == ["z"]
    assert broken == [(1, "no whole JSON object")]


def test_a_value_of_another_type_is_read_all_the_same(path: Path) -> None:
    rows, broken = read(path, b'{"a": 5, "b": {"c": "2.5"}}\n{"a": true}\n{"a": {"z": 1}}\n')
    assert rows == [(1, "5", "2.5"), (2, "true", None), (3, None, None)]
    assert broken == []


def test_an_array_is_read_element_by_element_however_it_is_laid_out(path: Path) -> None:
    objects = [{"a": f"{{{i}]\\", "b": {"c": i}} for i in range(5)]
    for indent in (None, 2):
        rows, _ = read(path, json.dumps(objects, indent=indent).encode())
        assert [(line, a) for line, a, _ in rows] == [(i + 1, f"{{{i}]\\") for i in range(5)]


def test_an_array_that_breaks_off_gives_its_whole_elements_and_then_says_so(path: Path) -> None:
    path.write_bytes(b'[{"a": "x"}, {"a": "y"}, {"a": "z')
    parts = object_rows(path, WANTED)
    assert next(parts).columns["a"].to_pylist() == ["x", "y"]
    with pytest.raises(DataError, match="breaks off or is damaged after element 2"):
        next(parts)


def test_types_are_those_of_the_first_objects(path: Path) -> None:
    path.write_bytes(b'{"a": 1, "b": 1.5, "c": "x", "d": true, "e": 1}\n{"e": "x", "b": 1}\nbad\n')
    types = types_of(first_objects(path), ["a", "b", "c", "d", "e", "f"])
    assert list(types.values()) == [
        pa.int64(),
        pa.float64(),
        pa.string(),
        pa.bool_(),
        pa.string(),
        pa.string(),
    ]


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)
OBJECTS = st.lists(
    st.fixed_dictionaries({}, optional={"a": TEXT | st.none(), "b": st.just({"c": 2.5})}),
    min_size=1,
    max_size=8,
)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(objects=OBJECTS, ascii_only=st.booleans())
def test_lines_arrays_and_irregular_lines_give_the_same_rows(
    path: Path, monkeypatch: pytest.MonkeyPatch, objects: list[dict[str, Any]], ascii_only: bool
) -> None:
    monkeypatch.setattr(files, "READ_BYTES", 16)
    texts = [json.dumps(found, ensure_ascii=ascii_only) for found in objects]
    lines, _ = read(path, "\n".join(texts).encode())
    array, _ = read(path, f"[{','.join(texts)}]".encode())
    irregular, _ = read(path, "\n".join([*texts, '{"a": 7}']).encode())
    assert lines == array
    assert irregular == [*lines, (len(lines) + 1, "7", None)]
