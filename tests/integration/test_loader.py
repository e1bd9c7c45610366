"""Imports into a real Postgres: what is stored, whatever happens on the way.

Run as a program, this file imports ``History(num_rows)`` into a dataset and prints the committed
rows chunk by chunk, for the test that kills it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from musicrec.database.engine import Dataset, open_dataset
from musicrec.errors import DatabaseError, DataError
from musicrec.interactions.schema import ID, LISTEN, REJECT, TRACK, ListenBatch
from musicrec.sources.loader import Progress, import_source

pytestmark = pytest.mark.slow

Play = tuple[str, str, float]  # user_id, track_id, seconds since 1970


@dataclass
class History:
    """A source over lists: line n is ``plays[n - 1]``, whatever ``rejects`` adds beside them.

    Attributes:
        tracks: for a line, what it says of tracks.
        fails: raised once this many lines, or all, were handed over, if given.
    """

    plays: Sequence[Play]
    batch_lines: int = 3
    tracks: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    rejects: dict[int, str] = field(default_factory=dict)
    fingerprint_: str = "history"
    fails: tuple[int, BaseException] | None = None
    name: str = "list"
    timed: bool = True

    def batches(self) -> Iterator[ListenBatch]:
        for begin in range(0, len(self.plays), self.batch_lines):
            if self.fails and begin >= self.fails[0]:
                raise self.fails[1]
            yield self._batch(begin, min(begin + self.batch_lines, len(self.plays)))
        if self.fails:
            raise self.fails[1]

    def _batch(self, begin: int, end: int) -> ListenBatch:
        lines = range(begin + 1, end + 1)
        user, track, seconds = zip(*self.plays[begin:end], strict=True)
        listens = pa.Table.from_arrays(
            [
                pa.array(lines, pa.int64()),
                pa.array(user, pa.string()).cast(ID),
                pa.array(track, pa.string()).cast(ID),
                pa.array([round(at * 1e6) for at in seconds], LISTEN.field("occurred_at").type),
                pa.array([30_000 + line % 7 for line in lines], pa.int32()),
                pa.array([line % 3 == 0 for line in lines], pa.bool_()),
                pa.array(["phone"] * len(lines), pa.string()),
            ],
            schema=LISTEN,
        )
        said = [row for line in lines for row in self.tracks.get(line, [])]
        refused = [(line, reason) for line, reason in self.rejects.items() if line in lines]
        rejects = [{"line": n, "reason": reason, "raw": f"raw {n}"} for n, reason in refused]
        return ListenBatch(
            listens,
            pa.Table.from_pylist(said, schema=TRACK),
            pa.Table.from_pylist(rejects, schema=REJECT),
            bytes_read=end * 10,
            last_line=end,
        )

    def total_bytes(self) -> int:
        return len(self.plays) * 10

    def fingerprint(self) -> str:
        return self.fingerprint_

    def describe(self) -> str:
        return f"{self.fingerprint_}.list"


def many_plays(num_plays: int, first: int = 0) -> list[Play]:
    """Plays of 50 users, unsorted and with ties; the same for the same numbers."""
    numbers = range(first, first + num_plays)
    return [(f"u{n * 7 % 50}", f"t{n * 31 % 997}", 1e9 + n * 13 % 1_000 // 4) for n in numbers]


def query(dataset: Dataset, sql: str) -> list[tuple[Any, ...]]:
    with dataset.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sqlalchemy.text(sql))]


def execute(dataset: Dataset, sql: str) -> None:
    with dataset.engine.begin() as connection:
        connection.execute(sqlalchemy.text(sql))


def stored(dataset: Dataset) -> list[tuple[Any, ...]]:
    """Every listen by its outside ids: user, time, tie, track, and the rest."""
    return query(
        dataset,
        "SELECT user_id, occurred_at, tie, track_id, ms_played, skipped, device, source "
        "FROM interactions JOIN users USING (user_key) JOIN tracks USING (track_key) "
        "ORDER BY user_id, occurred_at, tie",
    )


def everything(dataset: Dataset) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of all tables an import writes, surrogate keys and times of writing included."""
    tables = (
        "interactions",
        "users",
        "tracks",
        "imports",
        "rejected_rows",
        "dataset_info",
        "data_changes",
    )
    return {table: query(dataset, f"SELECT * FROM {table} t ORDER BY t::text") for table in tables}


def counts(dataset: Dataset) -> tuple[Any, ...]:
    (row,) = query(dataset, "SELECT last_line, rows_added, rows_known, rows_rejected FROM imports")
    return row


def line_by_line(plays: Sequence[Play]) -> list[tuple[Any, ...]]:
    """What a file must come to: (user, time, tie, track, line), by the rule in plain Python."""
    ties: dict[tuple[str, float], int] = {}
    table: dict[Play, tuple[int, int]] = {}
    for line, play in enumerate(plays, start=1):
        if play not in table:
            moment = (play[0], play[2])
            table[play] = ties.get(moment, 0), line
            ties[moment] = ties.get(moment, 0) + 1
    return sorted(
        (user, datetime.fromtimestamp(at, UTC), tie, track, 30_000 + line % 7)
        for (user, track, at), (tie, line) in table.items()
    )


def is_stored(dataset: Dataset, plays: Sequence[Play]) -> bool:
    return [row[:5] for row in stored(dataset)] == line_by_line(plays)


plays = st.tuples(
    st.sampled_from(["ann", "bob", "eve"]), st.sampled_from("abcd"), st.sampled_from([0, 1, 1.5])
)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    file=st.lists(plays, min_size=1, max_size=30),
    batch_lines=st.integers(1, 8),
    chunk_rows=st.integers(1, 12),
    stops=st.lists(st.integers(0, 30), max_size=2),
)
def test_any_file_is_stored_line_by_line_however_it_is_cut_and_interrupted(
    dataset, file, batch_lines, chunk_rows, stops
):
    execute(dataset, "TRUNCATE interactions, users, tracks, imports")
    for stop in stops:
        torn = History(file, batch_lines, fails=(stop, DataError("torn")))
        with pytest.raises(DataError, match="torn"):
            import_source(dataset, torn, chunk_rows=chunk_rows)
    import_source(dataset, History(file, batch_lines), chunk_rows=chunk_rows)
    assert is_stored(dataset, file)
    rows_added = len(line_by_line(file))
    assert counts(dataset) == (len(file), rows_added, len(file) - rows_added, 0)


def test_keys_do_not_depend_on_where_the_file_is_cut(dataset):
    history = History(many_plays(500), 20, tracks={30: [{"track_id": "unheard"}]})
    import_source(dataset, history, chunk_rows=1_000)
    whole = everything(dataset)
    execute(dataset, "TRUNCATE interactions, users, tracks, imports RESTART IDENTITY")
    import_source(dataset, history, chunk_rows=50)
    for table in ("interactions", "tracks"):
        assert everything(dataset)[table] == whole[table]


def test_the_summary_counts_every_row_once(dataset):
    repeated = [*many_plays(10), *many_plays(4)]
    progress: list[Progress] = []
    summary = import_source(
        dataset, History(repeated, rejects={2: "too odd"}), on_progress=progress.append
    )
    assert (summary.rows_read, summary.rows_added) == (15, 10)
    assert (summary.rows_known, summary.rows_rejected) == (4, 1)
    assert (summary.users_added, summary.tracks_added) == (10, 10)
    assert summary.reasons == {"too odd": 1}
    assert counts(dataset) == (14, 10, 4, 1)
    assert progress[-1] == Progress(140, 140, rows_read=15, rows_committed=15)


def test_a_second_import_changes_nothing(dataset):
    said = {1: [{"track_id": "t0", "title": "Zero", "tags": ["a"], "danceability": 7.3}]}
    history = History(many_plays(200), 20, tracks=said, rejects={7: "odd", 9: "odd"})
    import_source(dataset, history)
    before = everything(dataset)
    summary = import_source(dataset, history)
    assert (summary.rows_added, summary.users_added, summary.tracks_added) == (0, 0, 0)
    assert everything(dataset) == before


def test_the_same_listens_from_another_file_are_known(dataset):
    import_source(dataset, History(many_plays(200), fingerprint_="one"))
    before = stored(dataset)
    summary = import_source(dataset, History(many_plays(200), 7, fingerprint_="other"))
    assert (summary.rows_added, summary.rows_known) == (0, 200)
    assert stored(dataset) == before


def test_listens_deleted_by_hand_come_back(dataset):
    history = History(many_plays(200))
    import_source(dataset, history)
    before = {row[:2] + row[3:] for row in stored(dataset)}
    execute(dataset, "DELETE FROM interactions WHERE user_key % 3 = 0")
    summary = import_source(dataset, history)
    assert summary.rows_added == len(before) - summary.rows_known > 0
    assert {row[:2] + row[3:] for row in stored(dataset)} == before


def test_ties_go_on_after_those_of_an_earlier_file(dataset):
    import_source(dataset, History([("u", "a", 5), ("u", "b", 5)], fingerprint_="one"))
    later = [("u", "c", 5), ("u", "a", 5), ("u", "d", 5), ("u", "e", 6)]
    import_source(dataset, History(later, fingerprint_="two"))
    assert [(row[3], row[2]) for row in stored(dataset)] == [
        ("a", 0),
        ("b", 1),
        ("c", 2),
        ("d", 3),
        ("e", 0),
    ]


def test_plays_beyond_the_last_tie_are_rejected_with_the_reason(dataset):
    file = [("u", f"t{n}", 5) for n in range(32_770)]
    history = History(file, batch_lines=20_000)
    summary = import_source(dataset, history, chunk_rows=20_000)
    assert (summary.rows_added, summary.rows_rejected) == (32_768, 2)
    assert summary.reasons == {"more than 32,768 plays of one user at one time": 2}
    assert query(dataset, "SELECT line FROM rejected_rows ORDER BY 1") == [(32_769,), (32_770,)]
    before = everything(dataset)
    import_source(dataset, history)
    assert everything(dataset) == before


def test_rejects_with_zero_bytes_are_stored(dataset):
    import_source(dataset, History([("u", "a", 5), ("u\0", "b", 6)]))
    assert query(dataset, "SELECT line, reason, left(raw, 4) FROM rejected_rows") == [
        (2, "id with a zero byte", "u\ufffd\tb")
    ]


def test_new_keys_leave_the_sequences_ahead(dataset):
    import_source(dataset, History(many_plays(20)))
    execute(dataset, "INSERT INTO users (user_id) VALUES ('by hand')")
    execute(dataset, "INSERT INTO tracks (track_id) VALUES ('by hand')")
    history = History([("by hand", "by hand", 1), ("new", "new", 2)], fingerprint_="two")
    summary = import_source(dataset, history)
    assert (summary.users_added, summary.tracks_added, summary.rows_added) == (1, 1, 2)


def test_a_deleted_users_key_is_never_given_again(dataset):
    import_source(dataset, History([("a", "t", 1), ("b", "t", 1)]))
    execute(dataset, "DELETE FROM users WHERE user_id = 'b'")
    import_source(dataset, History([("c", "t", 1)], fingerprint_="two"))
    assert query(dataset, "SELECT user_id, user_key FROM users ORDER BY 1") == [("a", 1), ("c", 3)]


def test_a_finished_import_of_unchanged_data_is_not_read_again(dataset):
    history = History([("u", "a", 1), ("u", "a", 1), ("v", "b", 2)])
    first = import_source(dataset, history)
    history.batches = lambda: pytest.fail("read again")
    again = import_source(dataset, history)
    assert (again.rows_read, again.rows_known, again.rows_added) == (first.rows_read, 3, 0)


def test_a_change_by_another_during_an_import_makes_the_next_one_verify(dataset):
    history = History([("u", "a", n) for n in range(6)])
    deleted = []

    def delete_once(progress: Progress) -> None:
        if progress.rows_committed and not deleted:
            deleted.append(True)
            with dataset.engine.begin() as connection:
                connection.execute(sqlalchemy.text("DELETE FROM interactions"))

    import_source(dataset, history, on_progress=delete_once, chunk_rows=2)
    assert deleted
    import_source(dataset, history)
    assert query(dataset, "SELECT count(*) FROM interactions") == [(6,)]


@pytest.mark.parametrize(
    "change",
    ["DELETE FROM interactions", "DELETE FROM users", "UPDATE tracks SET title = NULL"],
)
def test_after_any_change_a_finished_import_is_verified(dataset, change):
    history = History([("u", "a", 1), ("v", "b", 2)], tracks={1: [{"track_id": "a", "title": "A"}]})
    import_source(dataset, history)
    before = query(dataset, "SELECT * FROM interactions"), track(dataset, "a")["title"]
    with dataset.engine.begin() as connection:
        connection.execute(sqlalchemy.text(change))
    import_source(dataset, history)
    users = query(dataset, "SELECT count(*) FROM users")
    assert len(query(dataset, "SELECT * FROM interactions")) >= len(before[0])
    assert (track(dataset, "a")["title"], users) == (before[1], [(2,)])


# What is said of tracks


def track(dataset: Dataset, track_id: str) -> dict[str, Any]:
    (row,) = query(dataset, f"SELECT to_jsonb(t) FROM tracks t WHERE track_id = '{track_id}'")
    return dict(row[0])


def test_a_known_track_has_only_its_gaps_filled(dataset):
    one = {1: [{"track_id": "a", "title": "First", "tempo": 120.0}]}
    import_source(dataset, History([("u", "a", 1)], tracks=one, fingerprint_="one"))
    two = {1: [{"track_id": "a", "title": "Second", "artist": "Ann", "tags": ["x", "y"]}]}
    import_source(dataset, History([("u", "a", 2)], tracks=two, fingerprint_="two"))
    row = track(dataset, "a")
    assert (row["title"], row["artist"], row["tags"]) == ("First", "Ann", ["x", "y"])
    assert row["tempo"] == 120


def test_nothing_new_to_say_of_a_track_leaves_no_change(dataset):
    said = {1: [{"track_id": "a", "title": "A"}, {"track_id": "b", "artist": "B"}]}
    import_source(dataset, History([("u", "a", 1)], tracks=said, fingerprint_="one"))
    before = query(dataset, "SELECT count(*) FROM data_changes")
    import_source(dataset, History([("u", "a", 1)], tracks=said, fingerprint_="two"))
    assert query(dataset, "SELECT count(*) FROM data_changes") == before


def test_one_bad_value_does_not_sink_the_track(dataset):
    said = {1: [{"track_id": "a", "title": "A", "energy": 7.3, "duration_ms": -2}]}
    summary = import_source(dataset, History([("u", "a", 1)], tracks=said))
    row = track(dataset, "a")
    assert (row["title"], row["energy"], row["duration_ms"]) == ("A", None, None)
    assert summary.reasons["energy out of range (value dropped)"] == 1
    assert (summary.rows_added, summary.rows_rejected) == (1, 0)


def test_a_track_nobody_heard_is_stored_when_something_is_said_of_it(dataset):
    said = {1: [{"track_id": "unheard", "title": "Silence"}]}
    summary = import_source(dataset, History([("u", "a", 1)], tracks=said))
    assert summary.tracks_added == 2
    assert track(dataset, "unheard")["title"] == "Silence"


# What kind of dataset it is


def test_a_timed_file_does_not_mix_with_an_untimed_one(dataset):
    import_source(dataset, History(many_plays(10)))
    before = everything(dataset)
    untimed = History(many_plays(10), fingerprint_="order", timed=False)
    with pytest.raises(DataError, match=r"order\.list is untimed .* is timed; .*dataset=NAME"):
        import_source(dataset, untimed)
    assert everything(dataset) == before


def test_an_untimed_dataset_takes_one_file_only(dataset):
    one = History(many_plays(10), fingerprint_="one", timed=False)
    import_source(dataset, one)
    before = everything(dataset)
    with pytest.raises(DataError, match=r"holds the untimed one\.list.*dataset=NAME"):
        import_source(dataset, History(many_plays(9), fingerprint_="two", timed=False))
    assert import_source(dataset, one).rows_known == 10
    assert everything(dataset) == before


def test_a_file_that_fails_at_once_leaves_no_trace(dataset):
    before = everything(dataset)
    with pytest.raises(DataError, match=r"^mostly bad$"):
        import_source(dataset, History(many_plays(9), fails=(0, DataError("mostly bad"))))
    assert everything(dataset) == before


# What stops an import


@pytest.mark.parametrize(
    ("failure", "kind", "message"),
    [
        (DataError("torn archive"), DataError, "torn archive; the first 80 rows of history.list"),
        (OSError("disk gone"), DataError, "cannot read history.list: disk gone; the first 80 rows"),
        (KeyboardInterrupt(), KeyboardInterrupt, "import stopped; the first 80 rows"),
    ],
)
def test_an_import_that_stops_says_what_is_committed_and_goes_on_later(
    dataset, failure, kind, message
):
    file = many_plays(200)
    with pytest.raises(kind) as caught:
        import_source(dataset, History(file, 20, fails=(100, failure)), chunk_rows=40)
    assert str(caught.value).startswith(message)
    assert "(up to line 80) are committed; run the same import again" in str(caught.value)
    assert counts(dataset)[0] == 80
    import_source(dataset, History(file, 20), chunk_rows=40)
    assert is_stored(dataset, file)
    assert counts(dataset) == (200, 200, 0, 0)


def test_a_lost_connection_is_one_line_that_says_what_is_committed(dataset, monkeypatch):
    monkeypatch.setenv("PGAPPNAME", dataset.name)
    terminate = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        f"WHERE application_name = '{dataset.name}' AND pid <> pg_backend_pid()"
    )

    def cut(progress: Progress) -> None:
        if progress.rows_committed == 40:
            query(dataset, terminate)

    file = many_plays(200)
    with pytest.raises(DatabaseError) as caught:
        import_source(dataset, History(file, 20), chunk_rows=40, on_progress=cut)
    assert "the first 40 rows of history.list (up to line 40)" in str(caught.value)
    assert "\n" not in str(caught.value)
    import_source(dataset, History(file, 20))
    assert is_stored(dataset, file)


def test_an_import_killed_midway_and_run_again_loses_and_doubles_nothing(dataset):
    file = many_plays(KILLED_ROWS)
    with subprocess.Popen(
        [sys.executable, __file__, dataset.name], stdout=subprocess.PIPE, text=True
    ) as importer:
        for line in importer.stdout:
            if int(line) >= KILLED_ROWS // 4:
                break
        importer.kill()
    committed = query(dataset, "SELECT count(*) FROM interactions")[0][0]
    assert KILLED_ROWS // 4 <= committed < KILLED_ROWS
    summary = import_source(dataset, History(file, 100))
    assert (summary.rows_added, summary.rows_known) == (KILLED_ROWS - committed, committed)
    assert is_stored(dataset, file)
    assert counts(dataset) == (KILLED_ROWS, KILLED_ROWS, 0, 0)


def test_two_importers_of_overlapping_files_share_one_dataset(dataset):
    halves = {"one": many_plays(3_000), "two": many_plays(3_000, first=1_500)}
    start = threading.Barrier(2)

    def run(name: str) -> int:
        with open_dataset(dataset.name) as mine:
            start.wait()
            history = History(halves[name], 100, fingerprint_=name)
            return import_source(mine, history, chunk_rows=300).rows_added

    with ThreadPoolExecutor(2) as pool:
        added = list(pool.map(run, halves))
    assert sum(added) == 4_500
    assert {(row[0], row[3], row[1].timestamp()) for row in stored(dataset)} == set(
        many_plays(4_500)
    )
    moments: dict[tuple[str, datetime], list[int]] = {}
    for user, at, tie, *_ in stored(dataset):
        moments.setdefault((user, at), []).append(tie)
    assert all(ties == list(range(len(ties))) for ties in moments.values())


def test_after_an_import_the_covering_index_covers(dataset, postgres):
    if postgres:
        pytest.skip("on a server others use, their transactions keep pages from all-visible")
    import_source(dataset, History(many_plays(2_000), 500))
    (plan,) = query(
        dataset,
        "EXPLAIN (ANALYZE, FORMAT JSON) SELECT user_key, occurred_at, tie, track_key "
        "FROM interactions WHERE user_key = 3 ORDER BY occurred_at, tie",
    )
    scan = plan[0][0]["Plan"]
    assert (scan["Node Type"], scan["Heap Fetches"]) == ("Index Only Scan", 0)


def indexes(dataset: Dataset) -> list[tuple[Any, ...]]:
    return query(
        dataset,
        "SELECT indexname, indexdef, conname, contype, pg_get_constraintdef(c.oid) "
        "FROM pg_indexes i "
        "LEFT JOIN pg_constraint c ON conindid = format('%I.%I', schemaname, indexname)::regclass "
        f"WHERE schemaname = '{dataset.name}' ORDER BY 1, 3",
    )


def test_the_indexes_are_the_same_after_an_import_into_an_empty_table(dataset):
    before = indexes(dataset)
    import_source(dataset, History(many_plays(100)), chunk_rows=30)
    assert indexes(dataset) == before
    assert {"interactions_in_order", "interactions_pkey"} <= {row[0] for row in before}


def test_an_open_reader_of_the_empty_table_does_not_hold_up_an_import(dataset):
    with dataset.engine.connect() as reader:
        reader.execute(sqlalchemy.text("SELECT FROM interactions"))
        import_source(dataset, History(many_plays(100)))
    assert is_stored(dataset, many_plays(100))


KILLED_ROWS = 20_000


def _import_slowly(dataset_name: str) -> None:
    def tell(progress: Progress) -> None:
        os.write(1, f"{progress.rows_committed}\n".encode())

    with open_dataset(dataset_name) as dataset:
        history = History(many_plays(KILLED_ROWS), 100)
        import_source(dataset, history, chunk_rows=500, on_progress=tell)


if __name__ == "__main__":
    _import_slowly(sys.argv[1])
