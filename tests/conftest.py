"""What every test may ask for: a real Postgres, a fresh dataset in it, the data at hand.

The Postgres is ``MUSICREC_TEST_DATABASE_URL`` where that is set, else an embedded server of the
test process's own in a temporary folder. The user's own ``.musicrec`` and ``DATABASE_URL`` are
out of reach of every test.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# One thread a test process and its children: several run side by side. Before torch loads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from musicrec.database import embedded, engine
from musicrec.database.engine import Dataset
from musicrec.database.locks import is_held

# How long an example takes on a busy machine says nothing about the code.
settings.register_profile("musicrec", deadline=None)
settings.load_profile("musicrec")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def musicrec_home() -> Iterator[Path]:
    """A home of this test process's own; its server, if one came to be, is stopped in the end."""
    # Not pytest's own temporary folder: its long name is kept for three runs.
    home = Path(tempfile.mkdtemp(prefix="musicrec-test-"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MUSICREC_HOME", str(home))
        patch.delenv("DATABASE_URL", raising=False)
        yield home
        embedded.leave_server()
        wait_until_stopped(home)
    shutil.rmtree(home)


def wait_until_stopped(home: Path, seconds: float = 30) -> None:
    """Wait for the server of ``home`` to be gone, and its keeper after it, as they promise."""
    folder = home / "postgres"
    deadline = time.monotonic() + seconds
    while folder.exists() and is_held(folder / "keeper.lock"):
        assert time.monotonic() < deadline, f"the server of {home} still runs after {seconds} s"
        time.sleep(0.02)
    assert not (folder / "data" / "postmaster.pid").exists()


@pytest.fixture(scope="session")
def postgres(musicrec_home: Path) -> Iterator[str | None]:
    """A running Postgres, found by ``open_dataset``; its URL, or None where it is embedded.

    A subprocess of a test finds it too: the environment names it.
    """
    url = os.environ.get("MUSICREC_TEST_DATABASE_URL")
    with pytest.MonkeyPatch.context() as patch:
        if url:
            patch.setenv("DATABASE_URL", url)
        else:
            embedded.running_server()
        yield url


@pytest.fixture
def dataset(postgres: str | None) -> Iterator[Dataset]:
    """A fresh, empty, migrated dataset of a name nobody else has; dropped afterwards."""
    name = f"test_{uuid.uuid4().hex[:16]}"
    with engine.open_dataset(name, create=True) as opened:
        yield opened
    engine.drop_dataset(name)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real listening data beside the project, read only; skips where it is absent."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data here: {folder} is absent")
    return folder
