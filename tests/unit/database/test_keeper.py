from __future__ import annotations

from pathlib import Path

import pytest

from musicrec.database.keeper import read_note, remove_socket

NOTE = "4126\n/home/me/data\n1763852581\n5432\n/tmp/musicrec-1\n\n  123  0\nready   \n"


def test_the_note_tells_the_process_and_the_socket(tmp_path: Path) -> None:
    (tmp_path / "postmaster.pid").write_text(NOTE)
    note = read_note(tmp_path)
    assert note is not None
    assert note.pid == 4126
    assert note.address == Path("/tmp/musicrec-1/.s.PGSQL.5432")


@pytest.mark.parametrize("length", [0, 3, 20, 40])
def test_a_note_half_written_counts_as_none(tmp_path: Path, length: int) -> None:
    (tmp_path / "postmaster.pid").write_text(NOTE[:length])
    assert read_note(tmp_path) is None


def test_nobody_answers_for_a_server_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / "postmaster.pid").write_text(NOTE.replace("/tmp/musicrec-1", str(tmp_path)))
    note = read_note(tmp_path)
    assert note is not None
    assert not note.answers()


def test_only_the_servers_own_leavings_are_removed(tmp_path: Path) -> None:
    others = tmp_path / "others"
    for name in (".s.PGSQL.5432", ".s.PGSQL.5432.lock", others.name):
        (tmp_path / name).touch()
    remove_socket(tmp_path / ".s.PGSQL.5432")
    assert list(tmp_path.iterdir()) == [others]
