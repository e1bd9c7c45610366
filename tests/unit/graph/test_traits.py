from __future__ import annotations

import pyarrow as pa

from graphs import AUDIO, traits
from musicrec.graph.traits import Trait, Traits, traits_of


def of_row(known: Traits, row: int) -> dict[Trait, float]:
    span = slice(known.starts[row], known.starts[row + 1])
    pairs = zip(known.columns[span].tolist(), known.degrees[span].tolist(), strict=True)
    return {known.names[column]: round(degree, 3) for column, degree in pairs}


def test_a_track_bears_its_artist_its_tags_and_its_decade():
    known = traits({"artist": "Portishead", "tags": ["Trip-Hop", "sad"], "year": 1994})
    assert of_row(known, 0) == {
        Trait("artist", "portishead"): 1,
        Trait("genre", "triphop"): 1,
        Trait("mood", "melancholic"): 1,
        Trait("era", "1990s"): 1,
    }


def test_two_spellings_are_one_trait():
    known = traits({"artist": "Sigur Rós", "tags": ["trip hop"]}, {"artist": "SIGUR RÓS"})
    again = traits({"artist": "sigur  rós", "tags": ["Trip Hop", "trip-hop", "TRIPHOP"]})
    assert of_row(again, 0) == of_row(known, 0)
    assert of_row(known, 1).keys() == {Trait("artist", "sigurros")}


def test_what_tag_and_audio_both_say_counts_once():
    known = traits({"tags": ["energetic"], "energy": 0.7})
    assert of_row(known, 0) == {Trait("mood", "energetic"): 1}


def test_audio_says_moods_and_themes_by_degrees():
    known = traits({"energy": 0.7}, {"energy": 0.5}, {"energy": 0.95, "instrumentalness": 0.01})
    assert of_row(known, 0) == {Trait("mood", "energetic"): 0.5}
    assert of_row(known, 1) == {}
    assert of_row(known, 2) == {Trait("mood", "energetic"): 1, Trait("theme", "vocal"): 1}


def test_a_track_of_which_nothing_is_known_has_an_empty_row():
    known = traits({}, {"artist": "A", "tags": []}, {"artist": " ", "year": 1200})
    assert [len(of_row(known, row)) for row in range(3)] == [0, 1, 0]
    assert len(known) == 3


def test_a_dataset_of_ids_alone_has_tracks_without_traits():
    ids = pa.table({"track_id": ["a", "b"]})
    names = ("artist", "tags", "year", *AUDIO)
    tracks = ids
    for name in names:
        tracks = tracks.append_column(name, pa.nulls(2, pa.string() if name == "artist" else None))
    known = traits_of(tracks.cast(_typed(tracks)))
    assert known.starts.tolist() == [0, 0, 0]
    assert known.rows(["b", "c"]).tolist() == [1, -1]


def _typed(table: pa.Table) -> pa.Schema:
    numbers = {"year": pa.int32(), **dict.fromkeys(AUDIO, pa.float32())}
    return pa.schema([pa.field(f.name, numbers.get(f.name, f.type)) for f in table.schema])
