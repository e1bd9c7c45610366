import json
from pathlib import Path

import numpy as np
import pytest

from musicrec.errors import DataError
from musicrec.interactions.snapshot import Snapshot, replaced_when_whole
from snapshots import snapshot_of

HISTORIES = [[1, 2, 1], [3, 2]]


def test_a_snapshot_comes_back_as_it_was_written(tmp_path):
    snapshot = snapshot_of(HISTORIES, tmp_path / "s")
    sequences = snapshot.sequences
    assert [sequences.of(u).tolist() for u in range(2)] == HISTORIES
    assert snapshot.catalogue().play_counts.tolist() == [2, 2, 1]
    assert snapshot.user_ids() == ["listener-0", "listener-1"]


def test_interactions_are_mapped_not_read(tmp_path):
    sequences = snapshot_of(HISTORIES, tmp_path / "s").sequences
    assert isinstance(sequences.items, np.memmap)
    assert isinstance(sequences.times, np.memmap)


def test_the_fingerprint_follows_the_content_not_the_place(tmp_path):
    same, again, other = (
        snapshot_of(histories, tmp_path / name).facts.fingerprint
        for name, histories in (("a", HISTORIES), ("b", HISTORIES), ("c", [[1, 2, 3], [3, 2]]))
    )
    assert same == again != other


def test_an_interrupted_build_leaves_nothing(tmp_path):
    def build() -> None:
        with replaced_when_whole(tmp_path / "s") as folder:
            (folder / "items.npy").write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build()
    assert list(tmp_path.iterdir()) == []


def test_the_second_of_two_builders_finds_the_firsts(tmp_path):
    def build(text: str, inside: Path | None = None) -> None:
        with replaced_when_whole(tmp_path / "s") as folder:
            (folder / "x").write_text(text)
            if inside:
                inside.mkdir()
                (inside / "x").write_text("first")

    build("second", inside=tmp_path / "s")
    assert (tmp_path / "s" / "x").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_a_short_file_is_noticed(tmp_path):
    snapshot_of(HISTORIES, tmp_path / "s")
    np.save(tmp_path / "s" / "items.npy", np.array([1, 2], dtype=np.int32))
    with pytest.raises(DataError, match="damaged"):
        Snapshot.open(tmp_path / "s")


@pytest.mark.parametrize("name", ["snapshot.json", "items.npy", "offsets.npy"])
@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b""), Path.unlink])
def test_a_torn_or_missing_file_is_noticed(tmp_path, name, damage):
    snapshot_of(HISTORIES, tmp_path / "s")
    damage(tmp_path / "s" / name)
    with pytest.raises(DataError, match="damaged"):
        Snapshot.open(tmp_path / "s")


def test_another_format_is_not_read(tmp_path):
    snapshot_of(HISTORIES, tmp_path / "s")
    description = tmp_path / "s" / "snapshot.json"
    description.write_text(json.dumps(json.loads(description.read_text()) | {"format": 99}))
    with pytest.raises(DataError, match="another version"):
        Snapshot.open(tmp_path / "s")
