"""A small world of the past for tests of the ranker: who played what, and what is known of it.

All targets are plays of one day, so that one window of features serves them all.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import torch
from sqlalchemy import text

from graphs import DAY, EVENINGS, store_graphs
from musicrec.database import engine as datasets
from musicrec.database.engine import Dataset
from musicrec.interactions.snapshot import Snapshot
from musicrec.models.sasrec import SASRec
from musicrec.registry import bundle as bundles
from musicrec.registry.bundle import Bundle
from plays import Play, store

#: When the windows end that the targets see.
END = (DAY + timedelta(days=2)).replace(hour=0)

NUM_LISTENERS = 130
LISTENERS = [f"listener-{number}" for number in range(NUM_LISTENERS)]
WITH_GRAPH, LIKING, SKIPPING = LISTENERS[5], LISTENERS[3], LISTENERS[4]

#: The graph's own words, and many more.
TRACKS: dict[str, dict[str, Any]] = {
    "roads": {"title": "Roads", "artist": "Portishead", "tags": ["trip hop"]},
    "glory box": {"title": "Glory Box", "artist": "Portishead", "tags": ["trip hop"]},
    "teardrop": {"title": "Teardrop", "artist": "Massive Attack", "tags": ["trip hop"]},
    "angel": {"title": "Angel", "artist": "Massive Attack", "tags": ["trip hop"]},
} | {f"t{n}": {"energy": n / 200, "tags": ["trip hop"] if n % 7 == 0 else []} for n in range(150)}
IDS = list(TRACKS)


def history() -> list[Play]:
    """Some days of plays each; the last two are of the day after ``END``, five minutes apart.

    Of these two, each repeats what the listener had played most: what no model of drawn weights
    knows, and a ranker can learn.
    """
    draw = random.Random(7)
    found = []
    for number, user in enumerate(LISTENERS):
        skipped = f"t{number}"
        favourite = draw.choice([track for track in IDS if track != skipped])
        tracks = [draw.choice(IDS) for _ in range(8 + number % 20)]
        tracks = [track for one in tracks for track in (one, favourite)][: 6 + number % 25]
        at = END - timedelta(days=draw.uniform(0.1, 3))
        for track in reversed(tracks):
            found.append(Play(user, track, at, skipped=draw.choice([None, True, False])))
            at -= timedelta(minutes=draw.choice([4, 4, 4, 31, 700]))
        last = END + timedelta(hours=1 + 22 * draw.random())
        # Within the session of the last two, so that what was skipped there matters.
        for minutes in range(3, 4 + number % 4):
            found.append(Play(user, skipped, last - timedelta(minutes=minutes), skipped=True))
        found.append(Play(user, favourite, last))
        found.append(Play(user, favourite, last + timedelta(minutes=5)))
    # Every track is in the snapshot's catalogue, whoever is drawn.
    found += [Play("everything", t, END - timedelta(days=4, minutes=n)) for n, t in enumerate(IDS)]
    return found


@contextmanager
def filled() -> Iterator[Dataset]:
    """The world in a dataset of a name nobody else has; dropped afterwards."""
    name = f"test_{uuid.uuid4().hex[:16]}"
    with datasets.open_dataset(name, create=True) as opened:
        fill(opened)
        yield opened
    datasets.drop_dataset(name)


def fill(dataset: Dataset) -> None:
    """Plays, likes and an interest graph."""
    store(dataset, history(), TRACKS)
    # Made of plays up to then: of a graph that does not say so, nobody knows what it gives away.
    graph = EVENINGS.model_copy(update={"heard_until": DAY.isoformat()})
    store_graphs(dataset, WITH_GRAPH, [graph])
    said = [(LIKING, "t140", "like", -1), (LIKING, "t3", "dislike", -1), (LIKING, "t9", "like", 3)]
    with dataset.engine.begin() as connection:
        for user, track, kind, days in said:
            connection.execute(
                text(
                    "INSERT INTO feedback (user_key, track_key, occurred_at, kind)"
                    " SELECT user_key, track_key, :at, :kind FROM users, tracks"
                    " WHERE user_id = :user AND track_id = :track"
                ),
                {"user": user, "track": track, "kind": kind, "at": END + timedelta(days=days)},
            )


def bundle_of(snapshot: Snapshot, *, seed: int = 0, **protocol: object) -> Bundle:
    """A model of drawn weights that was, so it says, judged on the snapshot."""
    torch.manual_seed(seed)
    catalogue = snapshot.catalogue()
    architecture = {
        "catalogue_size": len(catalogue),
        "max_length": 20,
        "dim": 16,
        "blocks": 1,
        "heads": 2,
        "transitions": 0,
    }
    facts = snapshot.facts
    known = {
        "dataset": facts.dataset,
        "split": "leave_one_out",
        "split_settings": {},
        "seen": "keep",
        "catalogue": facts.catalogue_size,
        "refit": False,
    }
    return bundles.new_bundle(
        SASRec(**architecture),
        catalogue,
        architecture=architecture,
        config={},
        metrics={"test/ndcg_10": 0.5, "protocol": known | protocol},
        data_fingerprint=facts.fingerprint,
    )


def last_plays() -> dict[str, tuple[str, datetime]]:
    """The test target of each listener: its track and its time."""
    found: dict[str, tuple[str, datetime]] = {}
    for play in sorted(history(), key=lambda play: play.at):
        found[play.user] = (play.track, play.at)
    return found


def ids_of(bundle: Bundle, items: np.ndarray[Any, Any]) -> list[str]:
    return [bundle.catalogue.track_id(int(item)) for item in items]
