"""What is particular to Spotify's, ListenBrainz' and MovieLens' files."""

from __future__ import annotations

import json
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from musicrec.errors import DataError
from musicrec.interactions.source import Source
from musicrec.sources.lastfm1k import LastFM1KSource
from musicrec.sources.listenbrainz import ListenBrainzSource
from musicrec.sources.movielens import MovieLensSource
from musicrec.sources.spotify import SpotifySource

PLAY = {
    "ts": "2020-04-11T00:03:00Z",
    "platform": "ios",
    "ms_played": 174_000,
    "master_metadata_track_name": "Jack",
    "master_metadata_album_artist_name": "Alex",
    "master_metadata_album_album_name": "Album",
    "spotify_track_uri": "spotify:track:74cks",
    "episode_name": None,
    "spotify_episode_uri": None,
    "skipped": True,
}
PODCAST = {
    **dict.fromkeys(PLAY),
    "ts": "2020-04-11T01:00:00Z",
    "ms_played": 9,
    "episode_name": "Talk",
    "spotify_episode_uri": "spotify:episode:1",
}


def everything(source: Source, what: str) -> list[dict[str, Any]]:
    return pa.concat_tables(getattr(batch, what) for batch in source.batches()).to_pylist()


def spotify(folder: Path, rows: list[Any], name: str = "endsong_0.json") -> SpotifySource:
    (folder / name).write_text(json.dumps(rows))
    return SpotifySource(folder, user="sam")


def test_a_spotify_play_begins_ms_played_before_its_end(tmp_path: Path) -> None:
    (play,) = everything(spotify(tmp_path, [PLAY]), "listens")
    assert play["occurred_at"] == datetime(2020, 4, 11, 0, 0, 6, tzinfo=UTC)
    assert (play["track_id"], play["device"], play["skipped"]) == ("74cks", "ios", True)


def test_a_podcast_is_neither_a_listen_nor_a_bad_row(tmp_path: Path) -> None:
    source = spotify(tmp_path, [PODCAST, PODCAST, PLAY])
    assert [row["line"] for row in everything(source, "listens")] == [3]
    assert everything(source, "rejected") == []


def test_a_spotify_row_that_names_nothing_is_rejected(tmp_path: Path) -> None:
    nothing = {**dict.fromkeys(PLAY), "ts": PLAY["ts"], "ms_played": 5}
    source = spotify(tmp_path, [PLAY, PLAY, nothing])
    (rejected,) = everything(source, "rejected")
    assert "no track id" in rejected["reason"]


def test_a_local_file_goes_by_artist_and_title(tmp_path: Path) -> None:
    local = {**PLAY, "spotify_track_uri": "spotify:local:Alex:Album:Jack:174"}
    assert everything(spotify(tmp_path, [local]), "listens")[0]["track_id"] == "alex :: jack"


def test_the_older_account_data_reads_too(tmp_path: Path) -> None:
    row = {"endTime": "2020-04-11 00:03", "artistName": "A", "trackName": "T", "msPlayed": 60_000}
    (play,) = everything(spotify(tmp_path, [row], "StreamingHistory0.json"), "listens")
    assert play["track_id"] == "a :: t"
    assert play["occurred_at"] == datetime(2020, 4, 11, 0, 2, tzinfo=UTC)


def test_account_data_is_left_aside_where_the_extended_history_is(tmp_path: Path) -> None:
    spotify(tmp_path, [{"endTime": "2020-04-11 00:03"}], "StreamingHistory0.json")
    assert len(everything(spotify(tmp_path, [PLAY]), "listens")) == 1


def test_an_export_without_a_user_asks_for_one(tmp_path: Path) -> None:
    spotify(tmp_path, [PLAY])
    with pytest.raises(DataError, match=r"no user id.*data\.user=NAME"):
        list(SpotifySource(tmp_path).batches())


def test_a_rejected_row_names_the_file_it_is_in(tmp_path: Path) -> None:
    spotify(tmp_path, [PLAY, PLAY])
    source = spotify(tmp_path, [PLAY, {**PLAY, "ts": "never"}], "endsong_1.json")
    (rejected,) = everything(source, "rejected")
    assert rejected["line"] == 4
    assert "endsong_1.json: time is not iso" in rejected["reason"]


def listen(info: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    metadata = {"track_name": "T", "artist_name": "A", "additional_info": info or {}, **more}
    return {"user_id": 5, "timestamp": 1_700_000_000, "track_metadata": metadata}


@pytest.mark.parametrize(
    ("row", "track_id"),
    [
        (listen({"recording_mbid": "mb"}, mbid_mapping={"recording_mbid": "mapped"}), "mapped"),
        (listen({"recording_mbid": "mb", "recording_msid": "ms"}), "mb"),
        ({**listen({"recording_mbid": ""}), "recording_msid": "ms"}, "ms"),
        (listen(recording_msid="ms", mbid_mapping=None), "ms"),
        (listen(), "a :: t"),
    ],
)
def test_listenbrainz_ids_are_the_best_there_are(
    tmp_path: Path, row: dict[str, Any], track_id: str
) -> None:
    (tmp_path / "1.listens").write_text(json.dumps(row))
    assert everything(ListenBrainzSource(tmp_path), "listens")[0]["track_id"] == track_id


@pytest.mark.parametrize("duration", ["3:45", -5, 1e15, [1], None])
def test_a_duration_a_client_made_up_does_not_cost_the_listen(
    tmp_path: Path, duration: object
) -> None:
    rows = [listen({"duration_ms": 1_000}), listen({"duration_ms": duration})]
    path = tmp_path / "1.listens"
    path.write_text("\n".join(map(json.dumps, rows)))
    assert len(everything(ListenBrainzSource(path), "listens")) == 2
    assert everything(ListenBrainzSource(path), "tracks")[0]["duration_ms"] == 1_000


def test_a_listenbrainz_export_belongs_to_the_user_it_names(tmp_path: Path) -> None:
    row = {"listened_at": 1_700_000_000.0, "track_metadata": listen()["track_metadata"]}
    with zipfile.ZipFile(tmp_path / "export.zip", "w") as archive:
        archive.writestr("user.json", '{"username": "sam"}')
        archive.writestr("listens/2023/11.jsonl", json.dumps(row))
        archive.writestr("feedback.jsonl", "{}")
    zipped = ListenBrainzSource(tmp_path / "export.zip")
    assert everything(zipped, "listens")[0]["user_id"] == "sam"
    named = ListenBrainzSource(tmp_path / "export.zip", user="kim")
    assert everything(named, "listens")[0]["user_id"] == "kim"
    assert zipped.fingerprint() != named.fingerprint()


def movielens(folder: Path, ratings: str, films: tuple[str, bytes]) -> MovieLensSource:
    (folder / ratings).write_text(
        {
            "ratings.dat": "1::10::4::978300760\n",
            "ratings.csv": "userId,movieId,rating,timestamp\n1,10,4.0,978300760\n",
            "ml.inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
            "1\t10\t4\t978300760\n",
            "u.data": "1\t10\t4\t978300760\n",
        }[ratings]
    )
    (folder / films[0]).write_bytes(films[1])
    return MovieLensSource(folder)


FILMS = {
    "ratings.dat": ("movies.dat", "10::Café (1995)::Drama|War\n".encode("latin-1")),
    "ratings.csv": ("movies.csv", 'movieId,title,genres\n10,"Café, The",Drama|War\n'.encode()),
    "ml.inter": (
        "ml.item",
        "item_id:token\tmovie_title:token_seq\tgenre:token_seq\n10\tCafé\tDrama War\n".encode(),
    ),
    "u.data": ("movies.tsv", "10\tCafé\tDrama|War\n".encode()),
}


@pytest.mark.parametrize("ratings", FILMS)
def test_films_beside_the_ratings_give_titles_and_genres(tmp_path: Path, ratings: str) -> None:
    source = movielens(tmp_path, ratings, FILMS[ratings])
    (play,) = everything(source, "listens")
    (film,) = everything(source, "tracks")
    assert (play["user_id"], play["track_id"]) == ("1", "10")
    assert play["occurred_at"].timestamp() == 978_300_760
    assert film["title"].startswith("Café")
    assert film["tags"] == ["Drama", "War"]


def test_ratings_that_are_none_are_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text("who,what\n1,2\n")
    with pytest.raises(DataError, match="no MovieLens ratings file: it begins with 'who,what'"):
        list(MovieLensSource(tmp_path).batches())


def test_lastfm_quotes_are_characters(tmp_path: Path) -> None:
    path = tmp_path / "plays.tsv"
    path.write_text(
        'u\t2009-05-04T23:08:57Z\ta\tBowie\t\t"Heroes"\nu\t2009-05-04T23:08:58Z\ta\tX\t\t"Y\n'
    )
    assert [track["title"] for track in everything(LastFM1KSource(path), "tracks")] == [
        '"Heroes"',
        '"Y',
    ]
