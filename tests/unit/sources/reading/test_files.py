"""Stored files: what they are is told by content, and how far they were read is known."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import pytest

from musicrec.errors import DataError
from musicrec.sources.reading import files
from musicrec.sources.reading.diagnosis import refuse_no_text
from musicrec.sources.reading.exports import export_files
from musicrec.sources.reading.files import chunks, existing_file, stretches


def numbers(path: Path) -> list[str]:
    return [line for part in stretches(path) for line in part.text.decode().splitlines()]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "STRETCH_LINES", 10)
    monkeypatch.setattr(files, "READ_BYTES", 64)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("end", ["", "\n"])
def test_stretches_hold_every_line_once_and_say_where_they_begin(tmp_path: Path, end: str) -> None:
    path = tmp_path / "plain"
    path.write_text("\n".join(map(str, range(95))) + end)
    parts = list(stretches(path))
    assert numbers(path) == [str(number) for number in range(95)]
    assert [part.first_line for part in parts] == list(range(1, 96, 10))
    assert [part.at_end for part in parts] == [False] * 9 + [True]
    assert parts[-1].bytes_read == path.stat().st_size


@pytest.mark.usefixtures("small")
def test_gzip_is_told_by_content_and_its_members_are_one_file(tmp_path: Path) -> None:
    path = tmp_path / "named.csv"
    path.write_bytes(gzip.compress(b"1\n2\n") + gzip.compress(b"3\n") + b"\0" * 100)
    assert numbers(path) == ["1", "2", "3"]


@pytest.mark.usefixtures("small")
def test_a_plain_file_called_gz_is_plain(tmp_path: Path) -> None:
    (tmp_path / "plays.gz").write_text("1\n2\n")
    assert numbers(tmp_path / "plays.gz") == ["1", "2"]


@pytest.mark.parametrize("cut", [9, 200, -4])
def test_a_torn_gzip_is_noticed_wherever_it_is_torn(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "torn.gz"
    path.write_bytes(gzip.compress("\n".join(map(str, range(9_999))).encode())[:cut])
    with pytest.raises(DataError, match=r"torn.*fetch the file again"):
        list(chunks(path))


def test_a_damaged_gzip_is_noticed(tmp_path: Path) -> None:
    content = bytearray(gzip.compress("\n".join(map(str, range(9_999))).encode()))
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "damaged.gz").write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        list(chunks(tmp_path / "damaged.gz"))


def test_a_line_without_end_is_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LONGEST_LINE_BYTES", 1_000)
    monkeypatch.setattr(files, "READ_BYTES", 256)
    (tmp_path / "binary").write_bytes(b"x" * 3_000)
    with pytest.raises(DataError, match="no table of lines"):
        list(stretches(tmp_path / "binary", max_bytes=500))


def test_a_gzip_of_nothing_is_called_empty(tmp_path: Path) -> None:
    (tmp_path / "nothing.gz").write_bytes(gzip.compress(b""))
    with pytest.raises(DataError, match="empty once decompressed"):
        list(chunks(tmp_path / "nothing.gz"))


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (b"PK\x03\x04", "zip"),
        (b"BZh91AY", "bzip2"),
        (b"\xfd7zXZ\x00", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstandard"),
        (b"PAR1", "Parquet"),
        ("user,ts\n".encode("utf-16"), "UTF-16"),
        ("user,item,ts\nu1,i1,5\n".encode("utf-16-le"), "UTF-16"),
        (b"x" * 257 + b"ustar", "tar archive"),
    ],
)
def test_what_is_no_text_is_named_with_the_way_out(tmp_path: Path, start: bytes, what: str) -> None:
    (tmp_path / "plays.csv").write_bytes(start + b"\0" * 40)
    with pytest.raises(DataError, match=what):
        refuse_no_text(tmp_path / "plays.csv")


def test_a_folder_given_for_a_file_says_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "plays.csv").touch()
    with pytest.raises(DataError, match=r"is a folder, not a file; it holds plays\.csv"):
        existing_file(tmp_path)


def test_files_of_an_export_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "export.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("b/10.json", "b/9.json", "a/1.json", "b/other.txt"):
            archive.writestr(name, "{}")
    names = [file.name for file in export_files(path, ["[0-9]*.json"])]
    assert names == ["a/1.json", "b/9.json", "b/10.json"]


def test_an_export_without_the_files_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "Userdata.json").touch()
    with pytest.raises(DataError, match=r"none of endsong_\*.json; it holds Userdata.json"):
        export_files(tmp_path, ["endsong_*.json"])


def test_a_torn_zip_is_named(tmp_path: Path) -> None:
    path = tmp_path / "export.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("endsong_0.json", "[]" * 900)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match="torn zip"):
        export_files(path, ["endsong_*.json"])
