"""Training and serving see the same numbers: one row asked of both at the same moment."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from musicrec.database.engine import Dataset
from musicrec.database.redis_address import RedisAddress
from musicrec.features import materialize
from musicrec.features.compute import compute, window_ends
from musicrec.features.context import Context
from musicrec.features.history import point_in_time
from musicrec.features.online import OnlineStore
from musicrec.features.plan import ReadPlan
from musicrec.features.views import STORED
from plays import AUDIO, Play, store

pytestmark = pytest.mark.slow

END = datetime(2024, 3, 10, tzinfo=UTC)
USERS = ("ann", "bob", "eve", "nobody")
TRACKS = [f"t{number}" for number in range(12)]
DAY = timedelta(days=1)


@pytest.fixture
def materialized(dataset: Dataset, redis: RedisAddress) -> Dataset:
    """Forty days of three listeners, computed each day and materialized at ``END``.

    Eve fell silent 33 days before: her windows have closed one after the other.
    """
    chance = random.Random(17)
    last = {"ann": 0, "bob": 5, "eve": 33}
    plays = [
        Play(
            user,
            chance.choice(TRACKS[:10]),
            END - timedelta(days=days, seconds=chance.randrange(1, 86_400)),
            ms=chance.choice([None, 1_000, 200_000]),
            skipped=chance.choice([None, True, False]),
        )
        for user, first in last.items()
        for days in range(first, 40)
        for _ in range(4)
    ]
    sound = dict.fromkeys(AUDIO, 0.25) | {"duration_ms": 200_000}
    tracks = {
        track: sound | {"artist": f"artist {number % 3}"} if number % 2 else {}
        for number, track in enumerate(TRACKS)
    }
    store(dataset, plays, tracks)
    for view in STORED:
        compute(dataset, view, window_ends(END - 40 * DAY, END))
        materialize.write(dataset, view, END, redis)
    return dataset


@pytest.mark.parametrize("hours", [1, 23])
def test_online_and_training_give_the_same_numbers(materialized, redis, hours):
    now = END + timedelta(hours=hours)
    context = Context(hour=now.hour, weekday=now.weekday(), device="iPhone", session=["t1", "t3"])
    with OnlineStore(ReadPlan(materialized.name), redis, timeout_seconds=10) as online:
        served = {user: online.read(user, TRACKS, context, now) for user in USERS}
    rows = pl.DataFrame(
        {
            "user_id": [user for user in USERS for _ in TRACKS],
            "track_id": TRACKS * len(USERS),
            "in_session": [int(track in ("t1", "t3")) for track in TRACKS] * len(USERS),
        }
    ).with_columns(
        pl.lit(now).cast(pl.Datetime("us", "UTC")).alias("occurred_at"),
        hour=pl.lit(now.hour),
        weekday=pl.lit(now.weekday()),
        device=pl.lit("iPhone"),
        session_plays=pl.lit(2),
    )
    trained = point_in_time(materialized, rows)
    columns = served["ann"].columns
    assert set(trained.columns) == set(columns)
    online_values = np.concatenate([served[user].values for user in USERS])
    np.testing.assert_array_equal(online_values, trained.select(columns).to_numpy())
    assert not np.isnan(online_values).all(axis=0).any()  # no column agrees by being empty
