"""Every file of ``../shared/data`` that a format covers reads, to the counts of its README."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from musicrec.interactions.schema import AUDIO_FEATURES, ListenBatch
from musicrec.interactions.source import Source
from musicrec.sources.listenbrainz import ListenBrainzSource
from musicrec.sources.movielens import MovieLensSource
from musicrec.sources.pairs import PairsSource
from musicrec.sources.reading.listens import ListenColumns
from musicrec.sources.reading.tracks import TrackColumns, TrackFile
from musicrec.sources.sequences import SequencesSource
from musicrec.sources.table import TableSource


@dataclass(frozen=True)
class Known:
    """What a README says of a file."""

    read: Callable[[Path], Source]
    listens: int
    users: int
    tracks: int
    rejected: int = 0


def thirty_music(path: Path) -> Source:
    columns = ListenColumns(user="user_id", item="song_id", time="ts", ms_played="playtime")
    return TableSource(path, columns, time="unix_s", played_unit="s")


def radio(path: Path) -> Source:
    columns = ListenColumns(user="callsign", title="song", artist="artist", time="time")
    return TableSource(path, columns, time="unix_s")


def situnes(path: Path) -> Source:
    columns = ListenColumns(user="user_id", item="item_id", time="timestamp")
    features = [name for name in AUDIO_FEATURES if name != "liveness"]
    tracks = TrackFile(
        path.with_name("music_metadata_music_info.csv"),
        TrackColumns(
            item="item_id",
            duration="duration",
            tags="general_genre",
            **{name: name for name in features},
        ),
    )
    return TableSource(path, columns, time="unix_s", tracks=tracks)


def by_line(path: Path) -> Source:
    return SequencesSource(path, user="line")


def by_place(path: Path) -> Source:
    return MovieLensSource(path, time="order")


# The radio's README counts songs as spelled; two pairs of them are one song once normalised. 26
# rows have no song.
FILES = {
    "30music/sessions_sample_10.csv.gz": Known(thirty_music, 238_911, 9_960, 9_998),
    "30music/sessions_sample_10.parquet": Known(thirty_music, 238_911, 9_960, 9_998),
    "bert4rec-amazon-beauty/beauty.txt.gz": Known(PairsSource, 353_962, 40_226, 54_542),
    "classic-rock-radio/classic_rock_plays.csv.gz": Known(radio, 37_647, 25, 2_229, rejected=26),
    "listenbrainz-sample/1.listens_sample.json": Known(ListenBrainzSource, 100, 98, 99),
    # Two films have no year where one should stand.
    "ml-100k/ml-100k.inter.gz": Known(MovieLensSource, 100_000, 943, 1_682, rejected=2),
    "ml-1m/ml-1m.sasrec-format.txt.gz": Known(PairsSource, 999_611, 6_040, 3_416),
    "ml-1m/ratings_chronological.dat.gz": Known(by_place, 1_000_209, 6_040, 3_706),
    "nowplaying-sessions/train_sessions.txt.gz": Known(by_line, 953_381, 128_077, 60_416),
    "s3rec-beauty/Beauty.txt.gz": Known(SequencesSource, 198_502, 22_363, 12_101),
    "s3rec-lastfm/LastFM.txt.gz": Known(SequencesSource, 52_551, 1_090, 3_646),
    "sasrec-amazon-video/Video.txt.gz": Known(PairsSource, 287_107, 31_013, 23_715),
    "situnes/Stage1_interactions.csv": Known(situnes, 600, 30, 25),
    "situnes/Stage2_interactions.csv": Known(situnes, 897, 30, 105),
    "situnes/Stage3_interactions.csv": Known(situnes, 509, 10, 217),
}


def distinct(batches: list[ListenBatch], field: str) -> int:
    ids: set[str] = set()
    for batch in batches:
        ids.update(pc.unique(batch.listens[field].cast(pa.string())).to_pylist())
    return len(ids)


@pytest.mark.parametrize("file", FILES)
def test_a_shared_file_reads_to_the_counts_of_its_readme(file: str, shared_data: Path) -> None:
    known = FILES[file]
    batches = list(known.read(shared_data / file).batches())
    assert sum(len(batch.listens) for batch in batches) == known.listens
    assert sum(len(batch.rejected) for batch in batches) == known.rejected
    assert distinct(batches, "user_id") == known.users
    assert distinct(batches, "track_id") == known.tracks


def test_films_bring_titles_and_genres(shared_data: Path) -> None:
    source = MovieLensSource(shared_data / "ml-1m/ratings_chronological.dat.gz", time="order")
    tracks = pa.concat_tables(batch.tracks for batch in source.batches())
    assert len(tracks) == 3_883
    first = tracks.to_pylist()[0]
    assert (first["track_id"], first["title"]) == ("1", "Toy Story (1995)")
    assert first["tags"] == ["Animation", "Children's", "Comedy"]


def test_spotify_songs_serve_as_track_metadata(shared_data: Path, tmp_path: Path) -> None:
    (tmp_path / "plays.csv").write_text("who,what,when\nsam,6f807x0ima9a1j3VPbc7VN,1600000000\n")
    about = TrackColumns(
        item="track_id",
        title="track_name",
        artist="track_artist",
        album="track_album_name",
        released_on="track_album_release_date",
        duration="duration_ms",
        tags="playlist_genre",
        **{name: name for name in AUDIO_FEATURES},
    )
    source = TableSource(
        tmp_path / "plays.csv",
        ListenColumns(user="who", item="what", time="when"),
        time="unix_s",
        tracks=TrackFile(shared_data / "spotify-songs/spotify_songs.csv.gz", about),
    )
    batches = list(source.batches())
    tracks = pa.concat_tables(batch.tracks for batch in batches)
    assert sum(len(batch.rejected) for batch in batches) == 0
    assert len(pc.unique(tracks["track_id"])) == 28_356
    assert [tracks[name].null_count for name in AUDIO_FEATURES] == [0] * len(AUDIO_FEATURES)
