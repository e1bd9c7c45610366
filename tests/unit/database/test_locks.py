from __future__ import annotations

from pathlib import Path

import pytest

from musicrec.database.locks import exclusive, is_held, leave, share


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "lock"


def test_a_lock_nobody_took_is_free(lock: Path) -> None:
    assert not is_held(lock)


def test_a_shared_lock_is_held_until_it_is_left(lock: Path) -> None:
    share(lock)
    assert is_held(lock)
    leave(lock)
    assert not is_held(lock)


def test_sharing_twice_is_sharing_once(lock: Path) -> None:
    share(lock)
    share(lock)
    leave(lock)
    assert not is_held(lock)


def test_a_lock_file_made_anew_is_held_as_well(lock: Path) -> None:
    share(lock)
    lock.unlink()
    share(lock)
    assert is_held(lock)
    leave(lock)


def test_an_exclusive_lock_ends_with_its_block_even_by_an_error(lock: Path) -> None:
    with pytest.raises(ZeroDivisionError), exclusive(lock):
        raise ZeroDivisionError
    assert not is_held(lock)
