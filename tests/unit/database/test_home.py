from __future__ import annotations

from pathlib import Path

import pytest

from musicrec.database.home import home
from musicrec.errors import DatabaseError


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder below nobody's home, and no variable that names one."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.delenv("MUSICREC_HOME")
    monkeypatch.chdir(folder)
    return folder


def test_the_variable_names_the_home(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSICREC_HOME", str(project / "else where"))
    assert home() == project / "else where"


def test_a_relative_home_is_made_absolute(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSICREC_HOME", "here")
    assert home() == project / "here"


def test_without_the_variable_it_is_made_in_the_working_folder(project: Path) -> None:
    assert home() == project / ".musicrec"
    assert home().is_dir()


def test_the_home_of_a_folder_above_is_found(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / ".musicrec").mkdir()
    (project / "notebooks" / "deep").mkdir(parents=True)
    monkeypatch.chdir(project / "notebooks" / "deep")
    assert home() == project / ".musicrec"


def test_git_ignores_the_home(project: Path) -> None:
    assert (home() / ".gitignore").read_text() == "*\n"


def test_a_home_that_cannot_be_made_names_the_way_out(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "file").touch()
    monkeypatch.setenv("MUSICREC_HOME", str(project / "file"))
    with pytest.raises(DatabaseError, match=r"file: .*; set MUSICREC_HOME to a folder"):
        home()
