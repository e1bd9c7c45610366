"""One listener's plays, read from Postgres."""

from __future__ import annotations

from sqlalchemy import select

from musicrec.database.engine import Dataset
from musicrec.database.tables import Interaction, Track, User
from musicrec.errors import DataError


def history_of(dataset: Dataset, user_id: str) -> list[str]:
    """Outside track ids of everything a listener played, oldest first.

    Raises:
        DataError: the dataset knows no such listener, or no play of theirs.
    """
    plays = (
        select(Track.track_id)
        .join(Interaction, Interaction.track_key == Track.track_key)
        .join(User, User.user_key == Interaction.user_key)
        .where(User.user_id == user_id)
        .order_by(Interaction.occurred_at, Interaction.tie)
    )
    with dataset.engine.connect() as connection:
        history = list(connection.scalars(plays))
    if not history:
        raise DataError(f"dataset {dataset.name!r} has no listens of user {user_id!r}")
    return history
