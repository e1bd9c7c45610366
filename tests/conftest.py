"""What every test may ask for: real servers, a fresh dataset in Postgres, the data at hand.

The Postgres is ``MUSICREC_TEST_DATABASE_URL`` and the Redis ``MUSICREC_TEST_REDIS`` (host:port)
where that is set, else an embedded server of the test process's own in a temporary folder. The
user's own ``.musicrec``, ``DATABASE_URL``, ``FEAST_…`` and ``MLFLOW_…`` are out of every test's
reach.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import prometheus_client  # noqa: F401  before Feast, which would have it count in files
import pytest
from hypothesis import settings

# One thread a test process and its children: several run side by side. Before torch loads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from musicrec.database import embedded, embedded_redis, engine
from musicrec.database.engine import Dataset
from musicrec.database.locks import is_held
from musicrec.database.redis_address import RedisAddress, redis_address

if TYPE_CHECKING:
    from llm_server import Server

# How long an example takes on a busy machine says nothing about the code.
settings.register_profile("musicrec", deadline=None)
settings.load_profile("musicrec")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def musicrec_home() -> Iterator[Path]:
    """A home of this test process's own; its servers, if any came to be, are stopped in the end."""
    # Not pytest's own temporary folder: its long name is kept for three runs.
    home = Path(tempfile.mkdtemp(prefix="musicrec-test-"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MUSICREC_HOME", str(home))
        for name in [*os.environ]:
            if name == "DATABASE_URL" or name.startswith(("FEAST_", "MLFLOW_")):
                patch.delenv(name)
        yield home
        embedded.leave_server()
        embedded_redis.leave_server()
        wait_until_stopped(home)
    shutil.rmtree(home)


def wait_until_stopped(home: Path, seconds: float = 30) -> None:
    """Wait for the servers of ``home`` to be gone, and their keepers after it, as they promise."""
    deadline = time.monotonic() + seconds
    for folder in (home / "postgres", home / "redis"):
        while folder.exists() and is_held(folder / "keeper.lock"):
            assert time.monotonic() < deadline, f"{folder} still has a server after {seconds} s"
            time.sleep(0.02)
    assert not (home / "postgres" / "data" / "postmaster.pid").exists()
    assert not (home / "redis").exists() or not is_held(home / "redis" / "server.lock")


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


@pytest.fixture(scope="session")
def redis(musicrec_home: Path) -> Iterator[RedisAddress]:
    """A running Redis, found by ``redis_address``; a subprocess of a test finds it too.

    Whoever writes to it does so under a Feast project that nobody else has: ``dataset.name``.
    """
    place = os.environ.get("MUSICREC_TEST_REDIS")
    with pytest.MonkeyPatch.context() as patch:
        if place:
            host, _, port = place.partition(":")
            patch.setenv("FEAST_REDIS_HOST", host)
            patch.setenv("FEAST_REDIS_PORT", port or "6379")
        yield redis_address()


@pytest.fixture
def dataset(postgres: str | None) -> Iterator[Dataset]:
    """A fresh, empty, migrated dataset of a name nobody else has; dropped afterwards."""
    name = f"test_{uuid.uuid4().hex[:16]}"
    with engine.open_dataset(name, create=True) as opened:
        yield opened
    engine.drop_dataset(name)


@pytest.fixture
def llm_server() -> Iterator[Server]:
    """A server that speaks both LLM providers' protocols; their keys are in the environment."""
    from llm_server import KEY, serving

    with serving() as server, pytest.MonkeyPatch.context() as patch:
        for name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY"):
            patch.setenv(name, KEY)
        yield server


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real listening data beside the project, read only; skips where it is absent."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data here: {folder} is absent")
    return folder
