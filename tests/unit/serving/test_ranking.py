"""What a ranker sees of a candidate."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from musicrec.features.context import Context
from musicrec.serving.candidates import Candidates
from musicrec.serving.listening import listening_of_items
from musicrec.serving.moment import moment_of
from musicrec.serving.ranking import COLUMNS, STORE_COLUMNS, ranking_features

NOW = datetime(2024, 3, 4, 18, tzinfo=UTC)
HOUR = 3_600_000_000
AT = int(NOW.timestamp()) * 1_000_000
LOG_PLAYS = np.arange(20, dtype=np.float32)

#: Played 5 7 5 9 5, the last two in the running session.
PLAYS = listening_of_items(
    np.array([5, 7, 5, 9, 5]),
    AT - np.array([50, 40, 30, 0.4, 0.25]) * HOUR,
    np.array([1, -1, 0, 0, 1], np.int8),
    liked=[9],
)
CANDIDATES = Candidates(
    np.array([5, 11, 7, 9]), np.array([4, 3, 2.5, 1], np.float32), np.array([3, 1, 2, 8], np.uint8)
)


def features(listening=PLAYS, candidates=CANDIDATES, **more) -> dict[str, list[float]]:
    known = {"log_plays": LOG_PLAYS, "store": None, "affinity": None} | more
    moment = moment_of(listening, NOW, Context())
    matrix = ranking_features(candidates, listening, moment, **known)
    assert matrix.dtype == np.float32
    return {name: matrix[:, place].tolist() for place, name in enumerate(COLUMNS)}


NAN = float("nan")


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("sasrec__score", [4, 3, 2.5, 1]),
        ("sasrec__place", [1, 2, 3, 4]),
        ("sasrec__gap", [0, 1, 1.5, 3]),
        ("listening__plays", [3, 0, 1, 1]),
        ("listening__share", [0.6, 0, 0.2, 0.2]),
        ("listening__share_recent", [0.6, 0, 0.2, 0.2]),
        ("listening__plays_since", [0, NAN, 3, 1]),
        ("listening__hours_since", [0.25, NAN, 40, 0.4]),
        ("listening__skip_share", [2 / 3, NAN, NAN, 0]),
        ("listening__liked", [0, 0, 0, 1]),
        ("listening__in_session", [1, 0, 0, 1]),
        ("listening__session_plays", [2, 2, 2, 2]),
        ("listening__hours_idle", [0.25] * 4),
        ("listening__kept_plays", [5] * 4),
        ("listening__kept_tracks", [3] * 4),
        ("catalogue__log_plays", [5, 11, 7, 9]),
        ("graph__affinity", [NAN] * 4),
        ("source__sasrec", [1, 1, 0, 0]),
        ("source__repeat", [1, 0, 1, 0]),
        ("source__graph", [0, 0, 0, 0]),
        ("source__popular", [0, 0, 0, 1]),
    ],
)
def test_each_column_says_what_it_is_named_for(column, values):
    assert features()[column] == pytest.approx(values, nan_ok=True)


def test_the_columns_of_the_store_and_the_graph_stand_where_their_names_do():
    store = np.arange(4 * len(STORE_COLUMNS), dtype=np.float32).reshape(4, -1)
    affinity = np.array([0.1, 0.2, 0.3, 0.4], np.float32)
    found = features(store=store, affinity=affinity)
    for place, name in enumerate(STORE_COLUMNS):
        assert found[name] == store[:, place].tolist()
    assert found["graph__affinity"] == affinity.tolist()


def test_without_times_nothing_is_said_of_them():
    plays = listening_of_items(np.array([5, 7]), None)
    found = features(plays)
    for column in ("hours_since", "hours_idle", "in_session", "session_plays"):
        assert np.isnan(found[f"listening__{column}"]).all()
    assert found["listening__plays"] == [1, 0, 1, 0]
    assert found["listening__plays_since"] == pytest.approx([1, NAN, 0, NAN], nan_ok=True)


def test_without_plays_nothing_is_known_of_them():
    found = features(listening_of_items(np.empty(0, np.int64), np.empty(0, np.int64)))
    assert found["listening__plays"] == [0, 0, 0, 0]
    assert np.isnan(found["listening__plays_since"]).all()


def test_recent_plays_are_the_newest_twenty():
    plays = listening_of_items(np.array([5] * 30 + [7] * 20), None)
    assert features(plays)["listening__share_recent"] == pytest.approx([0, 0, 1, 0])


def test_no_candidates_have_no_rows():
    none = Candidates(np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.uint8))
    assert features(candidates=none)["sasrec__score"] == []
