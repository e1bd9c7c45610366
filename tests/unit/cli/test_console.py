"""One command whose verbs are all doors."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from commands import ROOT
from musicrec.cli import console


def run(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["musicrec", *arguments])
    monkeypatch.delenv("MUSICREC_VERB", raising=False)
    console.main()


def test_every_script_is_a_verb():
    scripts = {path.stem for path in (ROOT / "scripts").glob("*.py")}
    assert {door.script for door in console.VERBS.values()} == scripts


@pytest.mark.parametrize("verb", console.VERBS)
def test_every_verb_has_its_module(verb):
    assert importlib.util.find_spec(f"musicrec.cli.{console.VERBS[verb].module}")


def test_help_lists_every_verb(monkeypatch, capsys):
    run(monkeypatch)
    said = capsys.readouterr().out
    assert all(f"musicrec {verb} " in said for verb in console.VERBS)


def test_a_misspelt_verb_names_the_nearest(monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "trian")
    assert ended.value.code == 2
    assert "no musicrec trian (did you mean 'train'?)" in capsys.readouterr().err


def test_a_verb_is_handed_its_arguments(monkeypatch, capsys):
    run(monkeypatch, "doctor", "--help")
    assert "usage: doctor" in capsys.readouterr().out
    assert sys.argv == ["musicrec", "--help"]


def test_a_process_that_a_launcher_starts_finds_its_verb(monkeypatch, capsys):
    run(monkeypatch, "doctor", "--help")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(sys, "argv", ["musicrec", "--help"])
    capsys.readouterr()
    console.main()
    assert "usage: doctor" in capsys.readouterr().out
