"""The world as a source: what any importer promises, and what makes it look like music."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from musicrec.errors import ConfigError
from musicrec.interactions.schema import AUDIO_FEATURES, LISTEN, REJECT, TRACK, ListenBatch
from musicrec.sources.synthetic import SyntheticWorld
from musicrec.sources.synthetic.world import FIRST_DAY


def by_listener(listens: pa.Table, column: str) -> list[np.ndarray]:
    """The column's values of each listener, in the order of the lines."""
    users = listens["user_id"].combine_chunks().indices.to_numpy()
    values = listens[column].to_numpy()
    return [values[users == user] for user in np.unique(users)]


def test_batches_have_the_schemas_of_the_door(world: SyntheticWorld) -> None:
    batch = next(world.batches())
    assert (batch.listens.schema, batch.tracks.schema) == (LISTEN, TRACK)
    assert (batch.rejected.schema, len(batch.rejected)) == (REJECT, 0)


def test_required_columns_hold_no_null(listens: pa.Table, tracks: pa.Table) -> None:
    assert all(listens[name].null_count == 0 for name in LISTEN.names)
    assert all(tracks[name].null_count == 0 for name in TRACK.names)


def test_reading_twice_gives_the_same_batches(
    small_batches: list[ListenBatch], world: SyntheticWorld
) -> None:
    again = list(world.batches())
    assert len(again) > 2
    assert [b.last_line for b in again] == [b.last_line for b in small_batches]
    assert all(a.listens.equals(b.listens) for a, b in zip(again, small_batches, strict=True))


def test_batch_size_changes_no_listen(listens: pa.Table, small_batches: list[ListenBatch]) -> None:
    cut = [row for batch in small_batches for row in batch.listens.to_pylist()]
    assert cut == listens.to_pylist()


def test_lines_count_up_from_one_over_all_batches(small_batches: list[ListenBatch]) -> None:
    lines = np.concatenate([batch.listens["line"].to_numpy() for batch in small_batches])
    assert (lines == np.arange(1, len(lines) + 1)).all()
    assert small_batches[-1].last_line == len(lines)


def test_progress_ends_at_the_total(
    small_batches: list[ListenBatch], world: SyntheticWorld
) -> None:
    read = [batch.bytes_read for batch in small_batches]
    assert read == sorted(read)
    assert read[-1] == world.total_bytes()


def test_catalogue_comes_once_with_the_first_batch(
    small_batches: list[ListenBatch], world: SyntheticWorld
) -> None:
    first, *others = (len(batch.tracks) for batch in small_batches)
    assert (first, sum(others)) == (world.num_tracks, 0)


def test_a_listener_does_not_depend_on_how_many_others_there_are(
    listens: pa.Table, tiny: dict[str, int]
) -> None:
    few = next(SyntheticWorld(**(tiny | {"num_listeners": 7})).batches()).listens
    assert few.to_pylist() == listens.slice(0, len(few)).to_pylist()


@pytest.mark.parametrize("setting", ["seed", "num_tracks", "num_listeners", "days"])
def test_fingerprint_changes_with_every_setting(
    setting: str, world: SyntheticWorld, tiny: dict[str, int]
) -> None:
    changed = SyntheticWorld(**(tiny | {setting: tiny[setting] + 1}))
    assert changed.fingerprint() != world.fingerprint()
    assert SyntheticWorld(**tiny).fingerprint() == world.fingerprint()


@pytest.mark.parametrize(
    ("setting", "value"),
    [("seed", -1), ("num_tracks", 99), ("num_listeners", 0), ("days", 13), ("days", 1000)],
)
def test_a_setting_out_of_bounds_is_named_with_the_way_out(
    setting: str, value: int, tiny: dict[str, int]
) -> None:
    with pytest.raises(ConfigError, match=rf"data\.{setting}={value} .* between \d+ and \d+"):
        SyntheticWorld(**(tiny | {setting: value}))


@pytest.mark.parametrize("smallest", [{"num_tracks": 100}, {"num_listeners": 1}, {"days": 14}])
def test_the_smallest_world_works(smallest: dict[str, int], tiny: dict[str, int]) -> None:
    (batch,) = SyntheticWorld(**(tiny | smallest)).batches()
    assert len(batch.listens) >= 3


def test_plays_of_a_listener_are_strictly_later_one_by_one(listens: pa.Table) -> None:
    starts = by_listener(listens, "occurred_at")
    assert all((np.diff(s) > np.timedelta64(0)).all() for s in starts)


def test_a_play_ends_before_the_next_begins(listens: pa.Table) -> None:
    starts, heard = by_listener(listens, "occurred_at"), by_listener(listens, "ms_played")
    for start, ms in zip(starts, heard, strict=True):
        assert (start[:-1] + ms[:-1].astype("timedelta64[ms]") < start[1:]).all()


def test_every_listener_has_enough_plays_to_leave_two_out(listens: pa.Table) -> None:
    assert min(map(len, by_listener(listens, "line"))) >= 3


def test_no_track_is_played_before_its_release(listens: pa.Table, tracks: pa.Table) -> None:
    released = dict(zip(*(tracks[c].to_pylist() for c in ("track_id", "released_on")), strict=True))
    days = pc.cast(listens["occurred_at"], pa.date32()).to_pylist()
    played = listens["track_id"].to_pylist()
    assert all(released[track] <= day for track, day in zip(played, days, strict=True))
    assert any(released[track] >= FIRST_DAY for track in played)


def test_a_skipped_track_is_heard_in_part_and_another_almost_whole(
    listens: pa.Table, tracks: pa.Table
) -> None:
    duration = dict(zip(*(tracks[c].to_pylist() for c in ("track_id", "duration_ms")), strict=True))
    whole = np.array([duration[track] for track in listens["track_id"].to_pylist()])
    share, skipped = listens["ms_played"].to_numpy() / whole, listens["skipped"].to_numpy()
    assert 0.02 < skipped.mean() < 0.4
    assert share[skipped].max() < 0.5 < 0.95 < share[~skipped].min()
    assert share.max() <= 1


def test_ids_follow_neither_popularity_nor_album(listens: pa.Table, tracks: pa.Table) -> None:
    counts = pc.value_counts(listens["track_id"].combine_chunks().cast(pa.string()))
    plays = dict(zip(*(counts.field(f).to_pylist() for f in ("values", "counts")), strict=True))
    in_order = np.array([plays.get(track, 0) for track in sorted(tracks["track_id"].to_pylist())])
    assert abs(np.corrcoef(np.arange(len(in_order)), np.argsort(np.argsort(in_order)))[0, 1]) < 0.2
    albums = tracks["album"].to_pylist()
    assert sum(a == b for a, b in pairwise(albums)) < len(albums) / 10


def test_titles_are_unique_and_an_album_has_one_artist_and_date(tracks: pa.Table) -> None:
    assert len(set(tracks["title"].to_pylist())) == len(tracks)
    owners = {(t["album"], t["artist"], t["released_on"]) for t in tracks.to_pylist()}
    assert len(owners) == len(set(tracks["album"].to_pylist()))


def test_tags_agree_with_the_audio_features(tracks: pa.Table) -> None:
    for track in tracks.to_pylist():
        assert ("energetic" in track["tags"]) == (track["energy"] > 0.6999)
        assert ("melancholic" in track["tags"]) == (track["valence"] < 0.3001)
        assert ("acoustic" in track["tags"]) == (track["acousticness"] > 0.6999)


def test_audio_features_keep_to_their_units(tracks: pa.Table) -> None:
    bounds = dict.fromkeys(AUDIO_FEATURES, (0, 1)) | {"tempo": (50, 210), "loudness": (-60, 0)}
    for feature, (low, high) in bounds.items():
        values = tracks[feature].to_numpy()
        assert values.min() >= low
        assert values.max() <= high
        assert values.std() > 0


def test_weekends_hear_more_than_working_days(listens: pa.Table) -> None:
    weekday = pc.day_of_week(listens["occurred_at"]).to_numpy()
    assert np.sum(weekday >= 5) / 2 > 1.1 * np.sum(weekday < 5) / 5


def test_listening_goes_by_the_hour(listens: pa.Table) -> None:
    """Each listener's night is silent; over all time zones it still shows."""
    hours = np.bincount(pc.hour(listens["occurred_at"]).to_numpy(), minlength=24)
    assert hours.max() > 2 * hours.min()
