"""One suite that every reader of files passes, over small files it writes itself."""

from __future__ import annotations

import gzip
import json
import zipfile
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from musicrec.errors import DataError
from musicrec.interactions.schema import LISTEN, REJECT, TRACK, ListenBatch
from musicrec.interactions.source import Source
from musicrec.sources.lastfm1k import LastFM1KSource
from musicrec.sources.listenbrainz import ListenBrainzSource
from musicrec.sources.movielens import MovieLensSource
from musicrec.sources.pairs import PairsSource
from musicrec.sources.reading import arrays, files, parquet
from musicrec.sources.reading.listens import ListenColumns
from musicrec.sources.sequences import SequencesSource
from musicrec.sources.spotify import SpotifySource
from musicrec.sources.table import TableSource

STRETCH = 7
FIRST = datetime(2021, 3, 4, 5, 6, 7, tzinfo=UTC)


@dataclass(frozen=True)
class Play:
    user: str
    track: str
    at: datetime


PLAYS = [Play(f"u{i % 3}", f"t{i % 11}", FIRST + timedelta(minutes=7 * i)) for i in range(40)]
LATER = Play("u0", "t0", datetime.now(UTC).replace(microsecond=0) + timedelta(days=3))


@dataclass(frozen=True)
class Format:
    """How a format writes plays.

    Attributes:
        row: one play as the file has it.
        write: a file of such rows in a folder.
        read: the source over what was written.
        bad: a row that is none; None where the format cannot hold one.
        before: lines above the first row.
        gzipped: whether such a file may be compressed as a whole.
    """

    row: Callable[[Play], Any]
    write: Callable[[Path, list[Any]], Path]
    read: Callable[[Path], Source]
    bad: Any
    before: int = 0
    gzipped: bool = True


def lines(name: str, header: str = "") -> Callable[[Path, list[Any]], Path]:
    def write(folder: Path, rows: list[Any]) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        content = header.encode() + b"".join(row + b"\n" for row in rows)
        (folder / name).write_bytes(content)
        return folder / name

    return write


def array(folder: Path, rows: list[Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "Streaming_History_Audio_2021_0.json"
    path.write_bytes(b"[" + b",\n ".join(rows) + b"]")
    return path


def two_files(folder: Path, rows: list[Any]) -> Path:
    """A folder whose files are named so that only their numbers put them in order."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, part in ((2, rows[:20]), (10, rows[20:])):
        (folder / f"endsong_{number}.json").write_bytes(b"[" + b",".join(part) + b"]")
    (folder / "Userdata.json").write_text("{}")
    return folder


def zipped_months(folder: Path, rows: list[Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "listenbrainz_sam.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("user.json", '{"user_id": 5, "username": "sam"}')
        archive.writestr("feedback.jsonl", '{"score": 1}\n')
        archive.writestr("listens/2021/2.jsonl", b"".join(row + b"\n" for row in rows[:20]))
        archive.writestr("listens/2021/10.jsonl", b"".join(row + b"\n" for row in rows[20:]))
    return path


def parquet_file(folder: Path, rows: list[Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "plays.parquet")
    return folder / "plays.parquet"


def seconds(play: Play) -> int:
    return int(play.at.timestamp())


def iso(play: Play) -> str:
    return play.at.strftime("%Y-%m-%dT%H:%M:%SZ")


def table(**settings: Any) -> Callable[[Path], Source]:
    columns = ListenColumns(user="user", item="song", time="ts")
    return lambda path: TableSource(path, columns, **settings)


def listenbrainz(play: Play, **more: Any) -> bytes:
    metadata = {"track_name": "T", "artist_name": "A", "recording_msid": play.track}
    return json.dumps({**more, "track_metadata": metadata}).encode()


def spotify(play: Play) -> bytes:
    """The play as Spotify tells it: by its end, 90 seconds on."""
    end = (play.at + timedelta(seconds=90)).strftime("%Y-%m-%dT%H:%M:%SZ")
    row = {"ts": end, "username": play.user, "ms_played": 90_000, "platform": "ios"}
    return json.dumps({**row, "spotify_track_uri": f"spotify:track:{play.track}"}).encode()


FORMATS = {
    "csv": Format(
        row=lambda play: f"{play.user},{seconds(play)},{play.track}".encode(),
        write=lines("plays.csv", "user,ts,song\n"),
        read=table(time="unix_s"),
        bad=b"u1,12",
        before=1,
    ),
    "tsv": Format(
        row=lambda play: f"{play.user}\t{iso(play)}\t{play.track}".encode(),
        write=lines("plays.tsv", "user\tts\tsong\n"),
        read=table(),
        bad=b"u1\tyesterday\tt1",
        before=1,
    ),
    "json lines": Format(
        row=lambda play: json.dumps(
            {"user": play.user, "ts": seconds(play) * 1000, "song": play.track}
        ).encode(),
        write=lines("plays.jsonl"),
        read=table(time="unix_ms"),
        bad=b'{"user": "u1", ',
    ),
    "parquet": Format(
        row=lambda play: {"user": play.user, "ts": play.at, "song": play.track},
        write=parquet_file,
        read=table(),
        bad={"user": None, "ts": FIRST, "song": "t1"},
        gzipped=False,
    ),
    "sequences": Format(
        row=lambda play: f"{play.user} {play.track}".encode(),
        write=lines("sequences.txt"),
        read=SequencesSource,
        bad=b"u1",
    ),
    "pairs": Format(
        row=lambda play: f"{play.user} {play.track}".encode(),
        write=lines("pairs.txt"),
        read=PairsSource,
        bad=b"u1 t1 5",
    ),
    "lastfm1k": Format(
        row=lambda play: f"{play.user}\t{iso(play)}\t\tA\t{play.track}\tT".encode(),
        write=lines("plays.tsv"),
        read=LastFM1KSource,
        bad=b"u1\t2009-05-04T23:08:57Z\tA",
    ),
    "listenbrainz dump": Format(
        row=lambda play: listenbrainz(play, user_id=play.user, timestamp=seconds(play)),
        write=lines("1.listens"),
        read=ListenBrainzSource,
        bad=b'{"user_id": "u1", "timestamp": "x"}',
    ),
    "listenbrainz export": Format(
        row=lambda play: listenbrainz(play, user_id=play.user, listened_at=seconds(play) + 0.0),
        write=zipped_months,
        read=lambda path: ListenBrainzSource(path),
        bad=b"nonsense",
        gzipped=False,
    ),
    "spotify file": Format(spotify, array, SpotifySource, bad=b'{"ts": "never"}'),
    "spotify folder": Format(spotify, two_files, SpotifySource, bad=b"5", gzipped=False),
    "movielens dat": Format(
        row=lambda play: f"{play.user}::{play.track}::4::{seconds(play)}".encode(),
        write=lines("ratings.dat"),
        read=MovieLensSource,
        bad=b"u1::t1",
    ),
    "movielens csv": Format(
        row=lambda play: f"{play.user},{play.track},4.5,{seconds(play)}".encode(),
        write=lines("ratings.csv", "userId,movieId,rating,timestamp\n"),
        read=MovieLensSource,
        bad=b"u1,t1,4.5,",
        before=1,
    ),
    "movielens inter": Format(
        row=lambda play: f"{play.user}\t{play.track}\t4\t{seconds(play)}".encode(),
        write=lines("ml.inter", "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"),
        read=MovieLensSource,
        bad=b"\tt1\t4\t880000000",
        before=1,
    ),
}
# The export says whose it is once, in user.json; every row is that person's.
ONE_LISTENER = {"listenbrainz export": "sam"}

every_format = pytest.mark.parametrize("name", FORMATS)
every_timed = pytest.mark.parametrize(
    "name", [n for n in FORMATS if n not in ("sequences", "pairs")]
)
every_gzipped = pytest.mark.parametrize("name", [n for n in FORMATS if FORMATS[n].gzipped])


@pytest.fixture(autouse=True)
def small_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty plays in several batches."""
    monkeypatch.setattr(files, "STRETCH_LINES", STRETCH)
    monkeypatch.setattr(parquet, "STRETCH_LINES", STRETCH)
    monkeypatch.setattr(arrays, "STRETCH_ELEMENTS", STRETCH)


@pytest.fixture
def written(name: str, tmp_path: Path) -> Path:
    form = FORMATS[name]
    return form.write(tmp_path / "export", [form.row(play) for play in PLAYS])


def read(name: str, path: Path) -> list[ListenBatch]:
    return list(FORMATS[name].read(path).batches())


def column(batches: list[ListenBatch], field: str) -> list[Any]:
    return [value for batch in batches for value in batch.listens[field].to_pylist()]


def rejects(batches: list[ListenBatch]) -> list[dict[str, Any]]:
    return [row for batch in batches for row in batch.rejected.to_pylist()]


@every_format
def test_every_play_is_read_in_the_order_of_the_file(name: str, written: Path) -> None:
    batches = read(name, written)
    user = ONE_LISTENER.get(name)
    assert column(batches, "user_id") == [user or play.user for play in PLAYS]
    assert column(batches, "track_id") == [play.track for play in PLAYS]
    assert rejects(batches) == []


@every_timed
def test_times_are_the_starts_of_plays(name: str, written: Path) -> None:
    assert column(read(name, written), "occurred_at") == [play.at for play in PLAYS]


@pytest.mark.parametrize("name", ["sequences", "pairs"])
def test_untimed_plays_count_seconds_through_the_file(name: str, written: Path) -> None:
    times = column(read(name, written), "occurred_at")
    assert [time.timestamp() for time in times] == list(range(len(PLAYS)))
    assert not FORMATS[name].read(written).timed


@every_format
def test_batches_have_the_schemas(name: str, written: Path) -> None:
    batches = read(name, written)
    assert len(batches) > 1
    for batch in batches:
        assert batch.listens.schema == LISTEN
        assert batch.tracks.schema == TRACK
        assert batch.rejected.schema == REJECT
        batch.listens.validate(full=True)
        batch.tracks.validate(full=True)


@every_format
def test_reading_twice_gives_the_same_batches(name: str, written: Path) -> None:
    source = FORMATS[name].read(written)
    assert list(source.batches()) == list(source.batches())


@every_format
def test_lines_rise_and_lie_within_their_batch(name: str, written: Path) -> None:
    before = 0
    for batch in read(name, written):
        numbers = batch.listens["line"].to_pylist()
        assert numbers == sorted(numbers)
        assert all(before < number <= batch.last_line for number in numbers)
        before = batch.last_line


@every_format
def test_progress_rises_to_the_total(name: str, written: Path) -> None:
    batches = read(name, written)
    progress = [batch.bytes_read for batch in batches]
    assert progress == sorted(progress)
    assert progress[-1] == FORMATS[name].read(written).total_bytes()
    assert batches[-1].last_line == len(PLAYS) + FORMATS[name].before


@every_format
def test_a_bad_row_is_rejected_with_its_line_and_the_others_stay(name: str, tmp_path: Path) -> None:
    form = FORMATS[name]
    rows = [form.row(play) for play in PLAYS]
    path = form.write(tmp_path / "export", [*rows[:12], form.bad, *rows[12:]])
    batches = read(name, path)
    assert [row["line"] for row in rejects(batches)] == [13 + form.before]
    assert rejects(batches)[0]["reason"]
    assert column(batches, "track_id") == [play.track for play in PLAYS]


@every_timed
def test_a_play_in_the_future_is_rejected(name: str, tmp_path: Path) -> None:
    form = FORMATS[name]
    path = form.write(tmp_path / "export", [form.row(play) for play in [*PLAYS, LATER]])
    batches = read(name, path)
    assert "in the future" in rejects(batches)[0]["reason"]
    assert len(column(batches, "line")) == len(PLAYS)


@every_format
def test_ids_without_a_row_are_not_handed_over(name: str, tmp_path: Path) -> None:
    form = FORMATS[name]
    path = form.write(tmp_path / "export", [form.row(play) for play in PLAYS])
    for batch in read(name, path):
        for field in ("user_id", "track_id"):
            dictionary = batch.listens[field].combine_chunks().dictionary.to_pylist()
            assert sorted(dictionary) == sorted(set(batch.listens[field].to_pylist()))


@every_gzipped
def test_a_gzipped_file_gives_the_same_listens(name: str, written: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed" / f"{written.name}.gz"
    packed.parent.mkdir()
    packed.write_bytes(gzip.compress(written.read_bytes()))
    plain, unpacked = read(name, written), read(name, packed)
    assert [batch.listens for batch in plain] == [batch.listens for batch in unpacked]
    assert unpacked[-1].bytes_read == packed.stat().st_size


@every_gzipped
def test_a_torn_gzip_gives_what_it_holds_and_then_says_so(
    name: str, written: Path, tmp_path: Path
) -> None:
    packed = tmp_path / "packed" / f"{written.name}.gz"
    packed.parent.mkdir()
    packed.write_bytes(gzip.compress(written.read_bytes())[:-30])
    reading = FORMATS[name].read(packed).batches()
    batches = [next(reading)]
    with pytest.raises(DataError, match="torn"):
        deque(map(batches.append, reading), maxlen=0)
    tracks = column(batches, "track_id")
    assert 0 < len(tracks) < len(PLAYS)
    assert tracks == [play.track for play in PLAYS][: len(tracks)]


@every_format
def test_the_fingerprint_follows_the_content_and_not_the_place(name: str, tmp_path: Path) -> None:
    form = FORMATS[name]
    rows = [form.row(play) for play in PLAYS]

    def fingerprint(folder: str, rows: list[Any]) -> str:
        return form.read(form.write(tmp_path / folder, rows)).fingerprint()

    assert fingerprint("a", rows) == fingerprint("b", rows)
    assert fingerprint("a", rows) != fingerprint("c", rows[:-1])


@every_format
def test_a_missing_path_is_named_in_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere.*does not exist") as caught:
        list(FORMATS[name].read(tmp_path / "nowhere").batches())
    assert "\n" not in str(caught.value)


@every_format
def test_an_empty_file_is_named_in_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty.inter").touch()
    with pytest.raises(DataError, match="is empty") as caught:
        list(FORMATS[name].read(tmp_path / "empty.inter").batches())
    assert "\n" not in str(caught.value)


@every_format
def test_a_source_describes_itself_by_its_path(name: str, written: Path) -> None:
    assert str(written) in FORMATS[name].read(written).describe()


SETTINGS: dict[str, tuple[Callable[[Path], Source], Callable[[Path], Source]]] = {
    "time": (table(time="unix_s"), table(time="unix_ms")),
    "unit": (table(time="unix_s"), table(time="unix_s", played_unit="s")),
    "mapping": (
        table(time="unix_s"),
        lambda p: TableSource(p, ListenColumns(user="song", item="user", time="ts"), "unix_s"),
    ),
    "user of sequences": (SequencesSource, lambda path: SequencesSource(path, user="line")),
    "spotify user": (SpotifySource, lambda path: SpotifySource(path, user="sam")),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_fingerprint_follows_the_settings(setting: str, tmp_path: Path) -> None:
    (tmp_path / "plays").write_text("user,ts,song\nu,1,t\n")
    one, other = (make(tmp_path / "plays").fingerprint() for make in SETTINGS[setting])
    assert one != other
