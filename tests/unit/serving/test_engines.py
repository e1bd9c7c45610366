"""The one that is running, what takes its place, and what does not."""

from __future__ import annotations

import os
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from musicrec.errors import BundleError
from musicrec.serving.engines import Engines
from musicrec.serving.measures import Measures


@dataclass(frozen=True)
class Opened:
    """What ``Engines`` needs of an engine."""

    version: str


class Opener:
    """Opens files whose text is their version; ``bad`` is none. It counts."""

    def __init__(self) -> None:
        self.num_opened = 0

    def __call__(self, path: Path) -> Any:
        self.num_opened += 1
        version = path.read_text()
        if version == "bad":
            raise BundleError(f"{path} is torn")
        if version == "bug":
            raise IndexError("a bug")
        return Opened(version)


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "model.pt"


@pytest.fixture
def opener() -> Opener:
    return Opener()


@pytest.fixture
def measures() -> Measures:
    return Measures()


@pytest.fixture
def engines(path, opener, measures) -> Engines:
    return Engines(path, opener, measures)


def put(path: Path, version: str) -> None:
    """As a bundle is written: beside, and renamed."""
    beside = path.with_suffix(".new")
    beside.write_text(version)
    beside.replace(path)


def looked(engines: Engines, times: int = 2) -> str | None:
    for _ in range(times):
        engines.look()
    engine = engines()
    return None if engine is None else engine.version


def test_the_first_file_is_opened_at_the_first_look(path, engines):
    put(path, "one")
    assert looked(engines, 1) == "one"
    assert engines.reason is engines.refusal is None


def test_a_missing_file_is_named_in_full_with_the_way_out(path, engines):
    assert looked(engines) is None
    assert str(path) in engines.reason
    assert "make train" in engines.reason


def test_the_reason_before_the_first_look_is_that_it_is_loading(engines, path):
    assert engines.reason == f"the model is being loaded from {path}"


def test_a_file_that_comes_later_is_taken(path, engines):
    looked(engines)
    put(path, "one")
    assert looked(engines) == "one"


def test_a_new_file_takes_the_place_of_the_old(path, engines):
    put(path, "one")
    looked(engines)
    put(path, "two")
    assert looked(engines) == "two"


def test_a_file_that_stays_is_opened_once(path, engines, opener):
    put(path, "one")
    looked(engines, 5)
    assert opener.num_opened == 1


@pytest.mark.parametrize("worse", ["bad", "bug"])
def test_a_bad_file_is_refused_once_and_the_old_goes_on(path, engines, opener, caplog, worse):
    put(path, "one")
    looked(engines)
    put(path, worse)
    assert looked(engines, 5) == "one"
    assert opener.num_opened == 2
    assert [record.message for record in caplog.records].count("model refused") == 1
    assert str(path) in engines.refusal
    assert engines.reason is None


def test_a_good_file_after_a_bad_one_is_taken(path, engines):
    put(path, "one")
    looked(engines)
    put(path, "bad")
    looked(engines)
    put(path, "two")
    assert looked(engines) == "two"
    assert engines.refusal is None


def test_a_bad_first_file_is_why_there_is_none(path, engines):
    put(path, "bad")
    assert looked(engines, 1) is None
    assert engines.reason.endswith(f"{path} is torn")


def test_a_file_that_is_being_written_is_left_alone(path, engines, opener):
    put(path, "one")
    looked(engines)
    for end in range(1, 6):
        path.write_text("twoxx"[:end])
        assert looked(engines, 1) == "one"
    assert opener.num_opened == 1
    assert looked(engines, 1) == "twoxx"


def test_a_file_that_changes_while_it_is_opened_is_not_refused_but_opened_again(
    path, measures, caplog
):
    opened = []

    def opener(there: Path) -> Any:
        opened.append(there.read_text())
        if len(opened) == 1:
            put(there, "whole")
            raise BundleError("torn")
        return Opened(opened[-1])

    put(path, "half")
    engines = Engines(path, opener, measures)
    assert looked(engines, 3) == "whole"
    assert "model refused" not in caplog.text


def test_a_link_that_points_elsewhere_is_a_new_file(tmp_path, path, engines):
    for version in ("one", "two"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "model").write_text(version)
    current = tmp_path / "current"
    current.symlink_to("one")
    path.symlink_to("current/model")
    assert looked(engines) == "one"
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").replace(current)
    assert looked(engines) == "two"


def test_a_copy_that_keeps_size_and_time_is_a_new_file(path, engines, tmp_path):
    put(path, "one")
    looked(engines)
    other = tmp_path / "other"
    other.write_text("two")
    stat = path.stat()
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    shutil.copy2(other, path)  # in place: the same inode
    assert path.stat().st_mtime_ns == stat.st_mtime_ns
    assert looked(engines) == "two"


def test_the_same_model_under_a_new_file_changes_nothing(path, engines, measures):
    put(path, "one")
    looked(engines)
    before = engines()
    put(path, "one")
    looked(engines)
    assert engines() is before
    assert b'musicrec_model_loads_total{outcome="taken"} 1.0' in measures.exposition()


def test_a_file_that_goes_leaves_the_old_one_running_and_says_so_once(path, engines, caplog):
    put(path, "one")
    looked(engines)
    path.unlink()
    assert looked(engines, 3) == "one"
    assert [record.message for record in caplog.records].count("model missing") == 1


def test_the_figures_tell_what_was_taken_and_refused(path, engines, measures):
    for version in ("one", "bad", "two"):
        put(path, version)
        looked(engines)
    text = measures.exposition().decode()
    assert 'musicrec_model_loads_total{outcome="taken"} 2.0' in text
    assert 'musicrec_model_loads_total{outcome="refused"} 1.0' in text
    assert 'musicrec_model_workers{version="one"} 0.0' in text
    assert 'musicrec_model_workers{version="two"} 1.0' in text


def test_it_opens_beside_the_one_that_answers(path, measures):
    begun, go_on = threading.Event(), threading.Event()

    def opener(there: Path) -> Any:
        if there.read_text() == "two":
            begun.set()
            assert go_on.wait(10)
        return Opened(there.read_text())

    put(path, "one")
    engines = Engines(path, opener, measures, watch_seconds=0.01)
    engines.look()
    put(path, "two")
    engines.start()
    assert begun.wait(10)
    assert engines().version == "one"
    go_on.set()
    engines.close()
    assert engines().version == "two"


def test_workers_that_answer_open_a_new_file_one_after_the_other(path, measures):
    under_way, most, lock = 0, 0, threading.Lock()

    def opener(there: Path) -> Any:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.1)
        with lock:
            under_way -= 1
        return Opened(there.read_text())

    put(path, "one")
    workers = [Engines(path, opener, measures) for _ in range(3)]
    for worker in workers:
        worker.look()
    put(path, "two")
    threads = [threading.Thread(target=looked, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {worker().version for worker in workers} == {"two"}
    assert most == 1
