"""Checkpoints are whole or not there, and one that a disk has damaged is noticed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from damage import cut_off, flip_a_byte
from musicrec.errors import ConfigError
from musicrec.training.checkpoints import (
    AtomicCheckpointIO,
    check_identity,
    is_whole,
    put_back,
    resume_path,
)


class Killed(Exception):
    """Stands for kill -9: nothing gets a chance to save."""


@pytest.fixture
def run(tmp_path) -> Path:
    """A run folder with three saves of ``last`` and one of ``best``."""
    for step in (1, 2, 3):
        save({"step": step, "weights": torch.full((100,), step)}, tmp_path, "last")
    save({"step": 2}, tmp_path, "best")
    return tmp_path


def save(content: dict[str, object], run: Path, name: str) -> None:
    AtomicCheckpointIO().save_checkpoint(content, run / "checkpoints" / f"{name}.ckpt")


def file(run: Path, name: str) -> Path:
    return run / "checkpoints" / f"{name}.ckpt"


def step_of(path: Path | None) -> int:
    assert path is not None
    return int(torch.load(path, weights_only=True)["step"])


def test_the_last_but_one_is_kept(run):
    assert step_of(file(run, "last")) == 3
    assert step_of(file(run, "previous")) == 2
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [
        "best.ckpt",
        "last.ckpt",
        "previous.ckpt",
    ]


def test_every_byte_that_is_flipped_is_noticed(run):
    path = file(run, "last")
    content = path.read_bytes()
    for place in [*range(0, len(content), 13), len(content) - 1]:
        flipped = bytearray(content)
        flipped[place] ^= 1 << (place % 8)
        path.write_bytes(flipped)
        assert not is_whole(path), place
    path.write_bytes(content)
    assert is_whole(path)


@pytest.mark.parametrize("kept", [0, 1, 16, 0.5, -1])
def test_every_length_it_is_cut_off_at_is_noticed(run, kept):
    path = file(run, "last")
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    assert not is_whole(path)


def test_a_file_that_grew_is_noticed(run):
    with file(run, "last").open("ab") as opened:
        opened.write(b"more")
    assert not is_whole(file(run, "last"))


def test_what_torch_wrote_without_a_checksum_is_not_whole(tmp_path):
    torch.save({"step": 1}, tmp_path / "last.ckpt")
    assert not is_whole(tmp_path / "last.ckpt")


def test_a_whole_last_checkpoint_is_gone_on_from(run):
    path = resume_path("last", run)
    assert path == file(run, "last")
    assert put_back(path) == path
    assert step_of(path) == 3


@pytest.mark.parametrize("damage", [cut_off, flip_a_byte, Path.unlink])
def test_in_place_of_a_damaged_one_the_one_before_is_used(run, damage):
    damage(file(run, "last"))
    assert resume_path("last", run) == file(run, "previous")
    assert step_of(resume_path(str(file(run, "last")), run)) == 2


def test_a_damaged_checkpoint_is_not_kept_in_place_of_a_whole_one(run):
    cut_off(file(run, "last"))
    path = resume_path("last", run)
    assert path is not None
    assert put_back(path) == file(run, "last")
    save({"step": 4}, run, "last")
    assert is_whole(file(run, "previous"))
    assert step_of(file(run, "previous")) == 2


@pytest.mark.parametrize("damage", [cut_off, flip_a_byte])
def test_a_damaged_best_epoch_is_one_clear_line(run, damage):
    damage(file(run, "best"))
    with pytest.raises(ConfigError, match=r"best\.ckpt is damaged .*put back a copy.*start anew"):
        resume_path("last", run)


def test_two_damaged_checkpoints_are_one_clear_line(run):
    cut_off(file(run, "last"))
    flip_a_byte(file(run, "previous"))
    with pytest.raises(ConfigError, match=r"last\.ckpt is damaged .*damaged too; start anew"):
        resume_path("last", run)


def test_a_first_checkpoint_that_is_damaged_is_one_clear_line(tmp_path):
    save({"step": 1}, tmp_path, "last")
    cut_off(file(tmp_path, "last"))
    with pytest.raises(ConfigError, match=r"is damaged .*not there yet; start anew"):
        resume_path("last", tmp_path)


def test_a_damaged_checkpoint_that_was_named_is_one_clear_line(run):
    cut_off(file(run, "previous"))
    with pytest.raises(ConfigError, match=r"previous\.ckpt is damaged"):
        resume_path(str(file(run, "previous")), run)


def test_a_kill_in_mid_save_leaves_the_last_checkpoint_whole(tmp_path, monkeypatch):
    saver, path = AtomicCheckpointIO(), tmp_path / "last.ckpt"
    saver.save_checkpoint({"step": 1}, path)

    def half(content, file):
        file.write(b"half")
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(torch, "save", half)
        saver.save_checkpoint({"step": 2}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}


def test_a_missing_checkpoint_says_where_it_was_looked_for(tmp_path):
    with pytest.raises(
        ConfigError, match=r"ckpt_path=last: there is no checkpoint at .*last\.ckpt"
    ):
        resume_path("last", tmp_path)


def test_a_checkpoint_of_other_settings_names_the_first_that_differs(tmp_path):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"identity": {"seed": 1, "batch_size": 64}}, path)
    check_identity(path, {"seed": 1, "batch_size": 64})
    with pytest.raises(ConfigError, match=r"was trained with batch_size=64, now it is 32"):
        check_identity(path, {"seed": 1, "batch_size": 32})


def test_a_file_that_is_no_checkpoint_is_one_clear_line(tmp_path):
    (tmp_path / "last.ckpt").write_text("garbage")
    with pytest.raises(ConfigError, match=r"is no checkpoint of a training"):
        check_identity(tmp_path / "last.ckpt", {})


def test_a_checkpoint_of_another_run_folder_names_that_folder(tmp_path):
    other = tmp_path / "other" / "checkpoints" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({}, other)
    with pytest.raises(ConfigError, match=r"add hydra\.run\.dir=.*other"):
        resume_path(str(other), tmp_path / "mine")
