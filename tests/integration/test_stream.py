"""From Postgres into a snapshot: whole, in order, or not at all."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import insert, text

from musicrec.database.tables import Interaction, Track, User
from musicrec.errors import DatabaseError, DataError
from musicrec.sources import stream

pytestmark = pytest.mark.slow

START = datetime(2024, 3, 1, tzinfo=UTC)


def play(user: int, minute: int, track: int, tie: int = 0) -> dict[str, object]:
    return {
        "user_key": user,
        "occurred_at": START + timedelta(minutes=minute, microseconds=7),
        "track_key": track,
        "tie": tie,
        "source": "test",
    }


PLAYS = [
    play(2, 5, 30, tie=1),  # stored out of order on purpose
    play(2, 5, 10, tie=2),
    play(2, 5, 40, tie=0),
    play(2, 1, 10),
    play(1, 9, 30),
]


@pytest.fixture
def listening(dataset):
    with dataset.engine.begin() as connection:
        connection.execute(insert(User), [{"user_key": k, "user_id": f"u{k}"} for k in (1, 2, 3)])
        connection.execute(
            insert(Track),
            [{"track_key": k, "track_id": f"t{k}", "title": f"T{k}"} for k in (10, 20, 30, 40)],
        )
        connection.execute(insert(Interaction), PLAYS)
        connection.execute(text("UPDATE dataset_info SET timed = true"))
    return dataset


def test_listeners_come_whole_in_the_order_of_time_and_tie(listening, tmp_path):
    snapshot = stream.snapshot(listening, tmp_path)
    catalogue, sequences = snapshot.catalogue(), snapshot.sequences
    assert snapshot.user_ids() == ["u1", "u2"]
    played = [[catalogue.track_id(i) for i in sequences.of(u)] for u in range(2)]
    assert played == [["t30"], ["t10", "t40", "t30", "t10"]]


def test_the_catalogue_is_what_was_played(listening, tmp_path):
    catalogue = stream.snapshot(listening, tmp_path).catalogue()
    assert catalogue.track_ids == ["t10", "t30", "t40"]
    assert catalogue.titles == ["T10", "T30", "T40"]
    assert catalogue.play_counts.tolist() == [2, 2, 1]


def test_times_are_microseconds_since_1970(listening, tmp_path):
    times = stream.snapshot(listening, tmp_path).sequences.times
    assert times[0] == (START + timedelta(minutes=9, microseconds=7)).timestamp() * 1e6


def test_an_unchanged_dataset_is_not_read_again(listening, tmp_path):
    reads = []
    first = stream.snapshot(listening, tmp_path, lambda done, total: reads.append((done, total)))
    again = stream.snapshot(listening, tmp_path, lambda done, total: reads.append((done, total)))
    assert first.folder == again.folder
    assert reads == [(5, 5)]


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM interactions WHERE user_key = 1",
        "UPDATE interactions SET tie = 3 - tie WHERE user_key = 2",
        "UPDATE tracks SET title = 'other' WHERE track_key = 10",
    ],
)
def test_a_changed_dataset_is_read_anew(listening, tmp_path, change):
    before = stream.snapshot(listening, tmp_path)
    with listening.engine.begin() as connection:
        connection.execute(text(change))
    assert stream.snapshot(listening, tmp_path).folder != before.folder


def test_the_same_listens_have_the_same_fingerprint_wherever_they_are(listening, tmp_path):
    first = stream.snapshot(listening, tmp_path / "a").facts.fingerprint
    with listening.engine.begin() as connection:  # a change and its undoing
        connection.execute(text("UPDATE interactions SET device = 'x'"))
    assert stream.snapshot(listening, tmp_path / "b").facts.fingerprint == first


def test_an_empty_dataset_is_said(dataset, tmp_path):
    with pytest.raises(DataError, match=f"{dataset.name}.* holds no listens; import"):
        stream.snapshot(dataset, tmp_path)


def test_a_damaged_snapshot_is_built_anew(listening, tmp_path):
    first = stream.snapshot(listening, tmp_path)
    (first.folder / "snapshot.json").write_text("")
    again = stream.snapshot(listening, tmp_path)
    assert again.facts == first.facts


@pytest.mark.parametrize("key", [30, 40])  # 40 is the highest there is
def test_a_play_of_an_unknown_track_is_said(listening, tmp_path, key):
    with listening.engine.begin() as connection:
        connection.execute(text("DELETE FROM tracks WHERE track_key = :key"), {"key": key})
    with pytest.raises(DataError, match=r"missing \(1 tracks, 0 users\)"):
        stream.snapshot(listening, tmp_path)
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith(".")]


def test_a_connection_lost_in_mid_stream_leaves_no_snapshot(listening, tmp_path, monkeypatch):
    with listening.engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO interactions (user_key, occurred_at, track_key, tie, source)"
                " SELECT 1, '2020-01-01'::timestamptz + n * interval '1 s', 10, 0, 'test'"
                " FROM generate_series(1, 300000) n"
            )
        )
    monkeypatch.setattr(stream, "BATCH_BYTES", 1 << 16)

    def cut_the_line(done: int, total: int) -> None:
        with listening.engine.connect() as connection:
            connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE pid <> pg_backend_pid() AND query LIKE '%ORDER BY user_key%'"
                    " AND query NOT LIKE '%pg_terminate%'"
                )
            )

    with pytest.raises(DatabaseError, match=r"lost after .* of 300,005 interactions.*run the"):
        stream.snapshot(listening, tmp_path, cut_the_line)
    assert list(tmp_path.iterdir()) == []


def test_a_connection_lost_after_the_last_row_is_one_line_too(listening, tmp_path, monkeypatch):
    def lose_the_server(*arguments):
        with listening.engine.connect() as connection:
            connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE pid <> pg_backend_pid() AND datname = current_database()"
                    " AND query LIKE '%ORDER BY user_key%' AND query NOT LIKE '%pg_terminate%'"
                )
            )
        return rows_of(*arguments)

    rows_of = stream._rows_of
    monkeypatch.setattr(stream, "_rows_of", lose_the_server)
    with pytest.raises(DatabaseError):
        stream.snapshot(listening, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_fewer_rows_than_counted_are_never_a_snapshot(listening, tmp_path, monkeypatch):
    monkeypatch.setattr(
        stream, "_INTERACTIONS", stream._INTERACTIONS.replace("ORDER BY", "WHERE tie < 2 ORDER BY")
    )
    with pytest.raises(DatabaseError, match="gave 4 of 5 interactions; nothing was kept"):
        stream.snapshot(listening, tmp_path)
    assert list(tmp_path.iterdir()) == []
