"""Listeners with small histories for the tests of the interest-graph job."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random

import plays
from musicrec.database.engine import Dataset

START = datetime(2024, 3, 1, 18, tzinfo=UTC)
GENRES = ("trip hop", "techno", "jazz", "folk", "metal", "soul")


def store(dataset: Dataset, users: int, *, plays_each: int = 12) -> list[str]:
    """Make ``users`` listeners all that the dataset holds; no two of them heard the same.

    Returns:
        Their outside ids, in order.
    """
    tracks = {
        f"t{number:02}": {
            "title": f"Song {number}",
            "artist": f"Artist {number % 12}",
            "tags": [GENRES[number % len(GENRES)]],
            "duration_ms": 200_000,
        }
        for number in range(36)
    }
    ids = [f"listener-{number:05}-zq" for number in range(users)]
    chances = [Random(number) for number in range(users)]
    heard = [
        plays.Play(
            user,
            f"t{chances[number].randrange(36):02}",
            START + timedelta(hours=7 * place, minutes=number % 50),
            ms=190_000,
        )
        for number, user in enumerate(ids)
        for place in range(plays_each)
    ]
    plays.store(dataset, heard, tracks)
    return ids
