"""Tables told which column is what: what is read, what is refused, what is guessed."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from musicrec.errors import ConfigError, DataError
from musicrec.interactions.schema import ListenBatch
from musicrec.sources.reading.listens import ListenColumns
from musicrec.sources.reading.tracks import TrackColumns, TrackFile
from musicrec.sources.table import TableSource

PLAIN = ListenColumns(user="user", item="song", time="ts")


def read(path: Path, content: str | bytes, columns: ListenColumns = PLAIN, **said: Any) -> Found:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return Found(list(TableSource(path, columns, **{"time": "unix_s", **said}).batches()))


class Found:
    """Everything the batches of a source say."""

    def __init__(self, batches: list[ListenBatch]) -> None:
        self.listens = pa.concat_tables(batch.listens for batch in batches).to_pylist()
        self.tracks = pa.concat_tables(batch.tracks for batch in batches).to_pylist()
        self.rejected = pa.concat_tables(batch.rejected for batch in batches).to_pylist()

    def column(self, name: str) -> list[Any]:
        return [row[name] for row in self.listens]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "plays"


def good(number: int = 20) -> str:
    return "".join(f"u{i},s{i},{1_600_000_000 + i}\n" for i in range(number))


def test_everything_a_listen_says_is_read(path: Path) -> None:
    columns = ListenColumns(
        user="u",
        item="i",
        time="t",
        title="n",
        artist="a",
        album="b",
        duration="l",
        ms_played="p",
        skipped="s",
        device="d",
    )
    content = "u,i,t,n,a,b,l,p,s,d\nsam,x,1600000000,N,A,B,200.5,30,yes,phone\nsam,y,1,,,,,,,\n"
    found = read(path, content, columns, played_unit="s", duration_unit="s")
    assert found.listens[0] == {
        "line": 2,
        "user_id": "sam",
        "track_id": "x",
        "occurred_at": datetime(2020, 9, 13, 12, 26, 40, tzinfo=UTC),
        "ms_played": 30_000,
        "skipped": True,
        "device": "phone",
    }
    assert [found.listens[1][name] for name in ("ms_played", "skipped", "device")] == [None] * 3
    known = {name: value for name, value in found.tracks[0].items() if value is not None}
    assert known == {
        "track_id": "x",
        "title": "N",
        "artist": "A",
        "album": "B",
        "duration_ms": 200_500,
    }
    assert len(found.tracks) == 1


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (",s,1600000000,5,1", "no user id"),
        ("u,,1600000000,5,1", "no track id"),
        ("u,s,,5,1", "no time"),
        ("u,s,soon,5,1", "time is not unix_s"),
        ("u,s,-5,5,1", "before 1970"),
        ("u,s,9600000000,5,1", "in the future"),
        ("u,s,1600000000,-5,1", "ms_played is negative"),
        ("u,s,1600000000,x,1", "ms_played is no number"),
        ("u,s,1600000000,9999999999,1", "over 24 days"),
        ("u,s,1600000000,5,perhaps", "skipped is neither true nor false"),
        (f"{'u' * 1001},s,1600000000,5,1", "an id of over 1,000 bytes"),
    ],
)
def test_a_bad_row_is_refused_with_its_reason_line_and_text(
    path: Path, row: str, reason: str
) -> None:
    columns = ListenColumns(user="user", item="song", time="ts", ms_played="ms", skipped="skip")
    rows = "".join(f"u,s{i},{1_600_000_000 + i},5,0\n" for i in range(5))
    found = read(path, f"user,song,ts,ms,skip\n{rows}{row}\n{rows}", columns)
    assert [rejected["line"] for rejected in found.rejected] == [7]
    assert reason in found.rejected[0]["reason"]
    assert found.rejected[0]["raw"] == row[:1_000]
    assert len(found.listens) == 10


def test_a_nul_that_json_hides_in_an_id_is_refused(path: Path) -> None:
    row = '{{"user": "u{}", "song": "s", "ts": 5}}'.format
    rows = [row(end) for end in ("1", "\\u0000", "2", "3")]
    columns = ListenColumns(user="user", item="song", time="ts")
    found = read(path, "\n".join(rows), columns, time="unix_s")
    assert found.rejected[0]["reason"] == "a NUL in the user"


def test_artist_and_title_make_the_id_where_the_item_is_missing(path: Path) -> None:
    columns = ListenColumns(user="user", item="song", time="ts", artist="a", title="t")
    content = "user,song,ts,a,t\nu,s1,5,Queen,One\nu,,6,Queen,One\nu,,7,QUEEN,one \nu,s2,8,,\n"
    found = read(path, content, columns, time="order")
    assert found.column("track_id") == ["s1", "queen :: one", "queen :: one", "s2"]
    assert [track["title"] for track in found.tracks] == ["One", "One"]


def test_the_first_value_said_of_a_track_is_kept(path: Path) -> None:
    columns = ListenColumns(user="user", item="song", time="ts", artist="a", title="t")
    content = "user,song,ts,a,t\nu,s,5,,One\nu,s,6,Queen,Two\n"
    track = read(path, content, columns, time="order").tracks[0]
    assert (track["title"], track["artist"]) == ("One", "Queen")


def test_one_person_made_every_row(path: Path) -> None:
    columns = ListenColumns(item="song", time="ts")
    assert read(path, "song,ts\ns,5\n", columns, user=7, time="order").column("user_id") == ["7"]


def test_columns_go_by_their_place_without_a_header(path: Path) -> None:
    columns = ListenColumns(user=2, item=1, time=3)
    found = read(path, "s,u,1600000000\n", columns, header=False)
    assert (found.listens[0]["user_id"], found.listens[0]["line"]) == ("u", 1)


def test_order_takes_places_from_a_column_or_else_from_the_lines(path: Path) -> None:
    placed = read(path, "user,song,ts\nu,a,9\nu,b,4\n", time="order")
    assert [time.timestamp() for time in placed.column("occurred_at")] == [9, 4]
    columns = ListenColumns(user="user", item="song")
    counted = read(path, "user,song\nu,a\nu,b\n", columns, time="order")
    assert [time.timestamp() for time in counted.column("occurred_at")] == [1, 2]


def test_parquet_gives_the_same_listens_as_text(path: Path) -> None:
    times = [1_600_000_000 + i for i in range(5)]
    content = "user,song,ts\n" + "".join(f"7,s,{time}\n" for time in times)
    text = read(path, content)
    pq.write_table(pa.table({"user": [7.0] * 5, "song": ["s"] * 5, "ts": times}), path)
    parquet = Found(list(TableSource(path, PLAIN, time="unix_s").batches()))
    for name in ("user_id", "track_id", "occurred_at"):
        assert parquet.column(name) == text.column(name)


def test_a_refused_parquet_row_is_shown_as_json(path: Path) -> None:
    pq.write_table(pa.table({"user": ["u", None, "u"], "song": ["s"] * 3, "ts": [5, 6, 7]}), path)
    found = Found(list(TableSource(path, PLAIN, time="order").batches()))
    assert found.rejected == [
        {"line": 2, "reason": "no user id", "raw": '{"user": null, "song": "s", "ts": 6}'}
    ]


def test_a_torn_parquet_is_named(path: Path) -> None:
    pq.write_table(pa.table({"user": ["u"] * 500}), path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="torn or no Parquet"):
        list(TableSource(path, PLAIN, time="order").batches())


def test_a_json_key_nobody_writes_is_answered_with_the_nearest(path: Path) -> None:
    with pytest.raises(DataError, match=r"no column 'song' \(did you mean 'songs'"):
        read(path, '{"user": "u", "songs": "s", "ts": 5}\n')


@pytest.mark.parametrize(
    ("content", "said", "guess"),
    [
        ("user,song,ts\n" + good(), {"time": "iso"}, "say data.time=unix_s"),
        ("user,song,ts\n" + good(), {"time": "unix_ms"}, "say data.time=unix_s"),
        ("user,song,ts\n" + good().replace("\n", "000\n"), {}, "say data.time=unix_ms"),
        ("user,song,ts\nu,s,2020-01-01\n", {}, "say data.time=iso"),
        ("user,song,ts\n" + "u,s\n" * 3 + good(2), {}, "separator"),
        ("user,song,ts\n,s,1600000000\n", {}, "data.user=NAME"),
        ("user,song,ts\nBjörk,s,1600000000\n".encode("latin-1"), {}, "data.encoding=latin-1"),
        ("user,song,ts\nu,s,1600000000\n".encode("utf-16"), {}, "UTF-16"),
        ("user,song,ts\n", {}, "holds no rows"),
        ("\n \n", {}, "blank lines only"),
    ],
)
def test_a_file_that_is_mostly_bad_ends_in_one_line_that_guesses_why(
    path: Path, content: str | bytes, said: dict[str, Any], guess: str
) -> None:
    with pytest.raises(DataError) as caught:
        read(path, content, **said)
    assert guess in str(caught.value)
    assert "\n" not in str(caught.value)


def test_half_bad_is_not_mostly_bad(path: Path) -> None:
    found = read(path, "user,song,ts\n" + good(10) + "u,s,never\n" * 10)
    assert (len(found.listens), len(found.rejected)) == (10, 10)


@pytest.mark.parametrize(
    ("columns", "said", "message"),
    [
        (ListenColumns(item="song", time="ts"), {}, "data.columns.user is not set"),
        (ListenColumns(user="user", time="ts", title="t"), {}, "data.columns.item is not set"),
        (ListenColumns(user="user", item="song"), {}, "data.columns.time is not set"),
        (PLAIN, {"played_unit": "min"}, "choose ms | s"),
        (PLAIN, {"time": "unix"}, "did you mean 'unix_s'"),
    ],
)
def test_a_mapping_that_gives_no_listen_is_refused_before_reading(
    path: Path, columns: ListenColumns, said: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        TableSource(path, columns, **{"time": "unix_s", **said})
    assert message in str(caught.value)


def tracks(path: Path, content: str, **columns: str) -> TrackFile:
    file = path.with_name("tracks.csv")
    file.write_text(content)
    return TrackFile(file, TrackColumns(item="id", **columns))


def test_a_track_file_is_read_after_the_plays_and_its_lines_count_on(path: Path) -> None:
    about = tracks(path, "id,name\ns1,One\n,Two\ns9,Nine\n", title="name")
    path.write_text("user,song,ts\nu,s1,1600000000\n")
    source = TableSource(path, PLAIN, time="unix_s", tracks=about)
    batches = list(source.batches())
    found = Found(batches)
    assert [(t["track_id"], t["title"]) for t in found.tracks] == [("s1", "One"), ("s9", "Nine")]
    assert [(row["line"], row["raw"]) for row in found.rejected] == [(2 + 3, ",Two")]
    assert "tracks.csv: no track id" in found.rejected[0]["reason"]
    assert batches[-1].bytes_read == source.total_bytes()


def test_a_bad_track_file_is_found_before_a_play_is_handed_over(path: Path) -> None:
    about = tracks(path, "id,energy\ns1,72\ns2,80\n", energy="energy")
    path.write_text("user,song,ts\nu,s1,1600000000\n")
    with pytest.raises(DataError, match=r"energy is outside 0\.\.1"):
        next(TableSource(path, PLAIN, time="unix_s", tracks=about).batches())


def test_a_track_file_changes_the_fingerprint(path: Path) -> None:
    path.write_text("user,song,ts\nu,s1,1600000000\n")
    alone = TableSource(path, PLAIN, time="unix_s").fingerprint()
    seen = {alone}
    for content in ("id,name\ns1,One\n", "id,name\ns1,Two\n"):
        about = tracks(path, content, title="name")
        seen.add(TableSource(path, PLAIN, time="unix_s", tracks=about).fingerprint())
    assert len(seen) == 3


@pytest.mark.parametrize(
    ("written", "day"),
    [
        ("2019-06-14", date(2019, 6, 14)),
        ("2019-06", date(2019, 6, 1)),
        ("2019", date(2019, 1, 1)),
        ("2019.0", date(2019, 1, 1)),
        ("2019-06-14T00:00:00Z", date(2019, 6, 14)),
        ("0000", None),
    ],
)
def test_a_release_is_a_day_a_month_or_a_year(path: Path, written: str, day: date | None) -> None:
    content = f"id,name,out\ns1,One,{written}\ns2,Two,2000\n"
    about = tracks(path, content, title="name", released_on="out")
    path.write_text("user,song,ts\nu,s1,1600000000\n")
    found = Found(list(TableSource(path, PLAIN, time="unix_s", tracks=about).batches()))
    assert found.tracks[0]["released_on"] == day
    assert found.rejected == []


def test_tags_are_split_and_said_once(path: Path) -> None:
    about = tracks(path, "id,genres\ns1,rock| pop |rock|\ns2,|\n", tags="genres")
    path.write_text("user,song,ts\nu,s1,1600000000\n")
    found = Found(list(TableSource(path, PLAIN, time="unix_s", tracks=about).batches()))
    assert [track["tags"] for track in found.tracks] == [["rock", "pop"]]
