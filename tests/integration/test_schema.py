"""The tables as Postgres has them after the migrations."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from musicrec.database.engine import Dataset

pytestmark = pytest.mark.slow

LISTEN = {
    "user_key": 1,
    "occurred_at": datetime(2014, 3, 1, tzinfo=UTC),
    "track_key": 1,
    "tie": 0,
    "source": "test",
}


def listen(dataset: Dataset, **changes: object) -> None:
    row = {**LISTEN, **changes}
    columns = ", ".join(row)
    values = ", ".join(f":{column}" for column in row)
    with dataset.engine.begin() as connection:
        connection.execute(sa.text(f"INSERT INTO interactions ({columns}) VALUES ({values})"), row)


def test_negative_ms_played_is_refused(dataset: Dataset) -> None:
    with pytest.raises(IntegrityError, match="interactions_ms_played_not_negative"):
        listen(dataset, ms_played=-1)


def test_a_play_in_the_future_is_refused(dataset: Dataset) -> None:
    with pytest.raises(IntegrityError, match="interactions_not_in_the_future"):
        listen(dataset, occurred_at=datetime.now(UTC) + timedelta(days=2))
