"""The on-demand features: the same from a request as from rows, and NaN where nothing is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musicrec.features.context import (
    FEATURES,
    REQUEST,
    STORED_INPUTS,
    Context,
    is_mobile,
    of_request,
    of_rows,
)

NAN = float("nan")
tracks = st.sampled_from(["a", "b", "c", "d"])
energies = st.one_of(st.just(NAN), st.floats(0, 1, width=32))
contexts = st.builds(
    Context,
    hour=st.none() | st.integers(0, 23),
    weekday=st.none() | st.integers(0, 6),
    device=st.none() | st.sampled_from(["", "iPhone OS 17", "Windows 11", "Sonos"]),
    session=st.none() | st.lists(tracks),
)


def features(context: Context, candidates=("a",), energy=0.5, energy_30d=0.25):
    """The named features of the first candidate."""
    count = len(candidates)
    row = of_request(
        context,
        candidates,
        np.full(count, energy, np.float32),
        np.full(count, energy_30d, np.float32),
    )[0]
    return dict(zip(FEATURES, row.tolist(), strict=True))


@given(
    context=contexts,
    candidates=st.lists(st.tuples(tracks, energies), min_size=1, max_size=5),
    energy_30d=energies,
)
def test_rows_of_a_request_are_what_the_request_gives(context, candidates, energy_30d):
    ids = [track for track, _ in candidates]
    energy = np.array([energy for _, energy in candidates], np.float32)
    of_listener = np.full(len(ids), energy_30d, np.float32)
    session = context.session
    rows = {
        "hour": [context.hour] * len(ids),
        "weekday": [context.weekday] * len(ids),
        "device": [context.device] * len(ids),
        "session_plays": [None if session is None else len(session)] * len(ids),
        "in_session": [None if session is None else int(track in session) for track in ids],
        STORED_INPUTS[0]: energy,
        STORED_INPUTS[1]: of_listener,
    }
    expected = of_request(context, ids, energy, of_listener)
    assert expected.dtype == np.float32
    np.testing.assert_array_equal(of_rows(rows), expected)


def test_nothing_known_is_nan_everywhere():
    found = features(Context(), energy=NAN)
    assert all(math.isnan(value) for value in found.values())


@pytest.mark.parametrize(
    ("given_", "known"),
    [
        ({"hour": 6}, {"hour_sin", "hour_cos"}),
        ({"weekday": 0}, {"is_weekend"}),
        ({"device": "Android"}, {"is_mobile"}),
        ({"session": []}, {"session_plays", "is_in_session"}),
    ],
)
def test_what_is_known_shows_in_its_own_features_alone(given_, known):
    found = features(Context(**given_), energy=NAN)
    assert {name for name, value in found.items() if not math.isnan(value)} == known


@pytest.mark.parametrize(("energy", "energy_30d"), [(NAN, 0.5), (0.5, NAN)])
def test_the_energy_gap_needs_both_energies(energy, energy_30d):
    assert math.isnan(features(Context(), energy=energy, energy_30d=energy_30d)["energy_gap"])


def test_a_moment_has_these_features():
    context = Context(hour=6, weekday=5, device="iPad", session=["b", "a", "b"])
    assert features(context) == {
        "hour_sin": 1,
        "hour_cos": pytest.approx(0, abs=1e-7),
        "is_weekend": 1,
        "is_mobile": 1,
        "session_plays": 3,
        "is_in_session": 1,
        "energy_gap": 0.25,
    }


def test_midnight_follows_eleven_at_night():
    late, midnight, one = (
        np.array([row["hour_sin"], row["hour_cos"]])
        for row in (features(Context(hour=hour)) for hour in (23, 0, 1))
    )
    assert np.linalg.norm(late - midnight) == pytest.approx(np.linalg.norm(one - midnight))


@pytest.mark.parametrize(("weekday", "expected"), [(4, 0), (5, 1), (6, 1), (0, 0)])
def test_the_weekend_is_saturday_and_sunday(weekday, expected):
    assert features(Context(weekday=weekday))["is_weekend"] == expected


@pytest.mark.parametrize(
    ("device", "expected"),
    [("Android OS 13 API 33 (samsung)", 1), ("iOS 16 (iPhone14,2)", 1), ("Windows 10", 0)],
)
def test_a_device_is_mobile_by_its_name(device, expected):
    assert is_mobile(device) == expected


@pytest.mark.parametrize("device", [None, ""])
def test_no_device_is_neither_mobile_nor_not(device):
    assert math.isnan(is_mobile(device))


@pytest.mark.parametrize("wrong", [{"hour": 24}, {"hour": -1}, {"weekday": 7}])
def test_a_moment_that_no_clock_shows_is_refused(wrong):
    with pytest.raises(ValueError, match="is not within 0"):
        Context(**wrong)


def test_rows_name_every_input_of_the_request():
    with pytest.raises(KeyError):
        of_rows({name: [1] for name in REQUEST})
