"""What is told of a history: the same each time, nothing of who it is, within its tokens."""

import json
import random
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listening import LISTENER, Song, history_of, summary_of
from musicrec.errors import ConfigError
from musicrec.graph.condense import condense
from musicrec.graph.digest import estimate_tokens
from musicrec.graph.prompt import prompt_of

songs = st.lists(
    st.builds(
        Song,
        track_id=st.uuids().map(str),
        title=st.none() | st.text(max_size=200),
        artist=st.none() | st.text(max_size=200),
        tags=st.lists(st.text(max_size=50), max_size=5),
        year=st.none() | st.integers(1, 2024),
        days=st.lists(st.integers(0, 300), min_size=1, max_size=4, unique=True),
    ),
    min_size=1,
    max_size=12,
)


def test_the_same_history_gives_the_same_bytes():
    one, other = summary_of(*LISTENER), summary_of(*LISTENER)
    assert one.canonical == other.canonical
    assert one.input_hash == other.input_hash


def test_one_play_more_gives_another_hash():
    more = (*LISTENER, Song("t8", days=(70,)))
    assert summary_of(*more).input_hash != summary_of(*LISTENER).input_hash


def test_the_numbers_of_tracks_in_the_database_change_nothing():
    history, tracks = history_of(LISTENER)
    numbers = random.Random(3).sample(range(1000), len(tracks))
    moved = {numbers[place]: track for place, track in tracks.items()}
    renumbered = type(history)(
        track=history.track * 0 + [numbers[place] for place in history.track],
        at=history.at,
        hour=history.hour,
        skipped=history.skipped,
        moving=history.moving,
    )
    summary = condense(renumbered, moved, zone="UTC", max_tokens=3000)
    assert summary.canonical == summary_of(*LISTENER).canonical


@given(songs)
def test_any_history_fits_its_tokens_and_is_json_by_line(songs):
    summary = summary_of(*songs, max_tokens=1200)
    assert estimate_tokens(summary.text) <= 1200
    lines = [json.loads(line) for line in summary.text.split("\n")]
    ids = [line["id"] for line in lines if "id" in line]
    assert ids == [f"e{n}" for n in range(1, len(summary.rows) + 1)]
    assert len(summary.evidence) == len(ids)


def test_many_tracks_are_cut_to_the_tokens():
    many = [Song(f"t{n}", f"Title {n}", f"Artist {n % 9}", ("rock",), 1999) for n in range(300)]
    small, large = summary_of(*many, max_tokens=1000), summary_of(*many)
    assert estimate_tokens(small.text) <= 1000 < estimate_tokens(large.text) <= 3000
    assert len(small.rows) < len(large.rows)


def test_too_few_tokens_are_refused_with_a_number_that_is_enough():
    with pytest.raises(ConfigError, match="max_tokens=20 ") as refused:
        summary_of(*LISTENER, max_tokens=20)
    enough = int(str(refused.value).split(" or more")[0].split()[-1])
    assert summary_of(*LISTENER, max_tokens=max(enough, 400)).rows


def test_a_skip_takes_back_a_play():
    weights = {tag.name: tag.weight for tag in summary_of(*LISTENER).tags}
    assert weights["pop"] == 0
    assert weights["trip hop"] > 0.2


def test_spellings_of_a_tag_are_counted_as_one():
    (tag,) = [tag for tag in summary_of(*LISTENER).tags if "trip" in tag.name]
    assert tag.share == pytest.approx(11 / 23, abs=0.001)


def test_recent_and_older_are_told_apart():
    techno = next(tag for tag in summary_of(*LISTENER).tags if tag.name == "techno")
    assert techno.older == 0
    assert techno.recent > 0.5


def test_the_hours_are_those_of_the_clock():
    habits = summary_of(Song("a", days=(0, 1)), Song("b", days=(5,), hours=5)).habits
    assert habits.dayparts == (0, 0, 0.667, 0.333)
    assert habits.weekend == pytest.approx(1 / 3, abs=0.001)  # the sixth day is a Saturday


def test_the_text_holds_neither_ids_of_tracks_nor_dates():
    text = prompt_of(summary_of(Song("spotify:track:77", "A", "B", days=(0, 400))))
    assert "spotify:track:77" not in text
    assert "2024" not in text
    assert "2025" not in text


def test_evidence_is_what_is_stored():
    summary = summary_of(Song("t1", "A", "B", days=(0, 3)))
    (one,) = summary.evidence
    assert (one.track_id, one.title, one.artist, one.plays) == ("t1", "A", "B", 2)
    assert datetime.fromisoformat(one.last_played_at) == datetime(2024, 3, 7, 18, tzinfo=UTC)


def test_what_is_heard_together_makes_groups_where_no_track_has_a_tag():
    near = [Song(f"a{n}", artist="A", days=(0, 1)) for n in range(3)]
    far = [Song(f"b{n}", days=(30, 31)) for n in range(4)]
    groups = summary_of(*near, *far).groups
    assert groups[0].name in {f"around b{n}" for n in range(4)}
    assert groups[1].name == "around A"
    assert [len(group.rows) for group in groups] == [4, 3]


def test_tags_leave_no_room_for_groups():
    assert summary_of(*LISTENER).groups == ()


def test_an_album_in_its_order_is_noticed():
    album = [Song(f"t{n}", artist="A", album="One", days=(0, 9)) for n in range(5)]
    assert summary_of(*album).habits.album_runs == pytest.approx(8 / 10)
