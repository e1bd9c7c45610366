"""A dataset with listeners, live features and interest graphs beside a bundle of any size.

Everything is made as the project makes it: plays by COPY, features by ``materialize_features.py``,
graphs by ``generate_interest_graph.py`` with the local provider, and a ranker by LightGBM, of as
many trees and as deep as a trained one, that has learnt nothing worth knowing.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from sqlalchemy import text

import serving_model
from musicrec.database.engine import Dataset
from musicrec.features import tables
from musicrec.registry import bundle as bundles
from musicrec.registry.bundle import TrainedRanker
from musicrec.serving.ranking import COLUMNS

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
DAYS = 28

_TRACKS = """
INSERT INTO tracks (track_key, track_id, title, artist, tags, duration_ms, released_on,
    danceability, energy, valence, tempo, loudness, acousticness, instrumentalness, speechiness,
    liveness)
SELECT n, 'track-' || n, 'Song ' || n, 'Artist ' || (n - 1) / %(per_artist)s,
       ARRAY['genre ' || (n - 1) / %(per_genre)s, 'mood ' || n %% 40],
       120000 + 1000 * (n %% 200), date '1960-01-01' + (n::bigint * 7919 %% 22000)::int,
       random(), random(), random(), 60 + 120 * random(), -30 * random(), random(), random(),
       random(), random()
FROM generate_series(1, %(tracks)s) AS n
"""


def fill(dataset: Dataset, tracks: int, listeners: int, plays: int) -> None:
    """Tracks, ``user-0`` and so on, and ``plays`` of each, the newest minutes ago."""
    now = datetime.now(UTC)
    with tables.psycopg_connection(dataset, "fill the world") as connection:
        per_genre = serving_model.TRACKS_PER_ARTIST * serving_model.ARTISTS_PER_GENRE
        connection.execute("SELECT setseed(.3)")
        connection.execute(
            _TRACKS,
            {
                "tracks": tracks,
                "per_artist": serving_model.TRACKS_PER_ARTIST,
                "per_genre": per_genre,
            },
        )
        connection.execute(
            "INSERT INTO users (user_key, user_id) SELECT n + 1, 'user-' || n"
            " FROM generate_series(0, %s - 1) AS n",
            (listeners,),
        )
        copy_plays = (
            "COPY interactions (user_key, occurred_at, tie, track_key, ms_played, skipped, device,"
            " source) FROM STDIN"
        )
        chance = np.random.default_rng(9)
        with connection.cursor() as cursor, cursor.copy(copy_plays) as copy:
            for user, items in enumerate(
                serving_model.histories(tracks, listeners, plays, seed=23), start=1
            ):
                ago = np.sort(DAYS * 86_400 * chance.random(plays))[::-1] + 120
                skipped = chance.random(plays) < 0.15
                for item, seconds, is_skipped in zip(
                    items.tolist(), ago.tolist(), skipped.tolist(), strict=True
                ):
                    moment = now - timedelta(seconds=seconds)
                    heard = 20_000 if is_skipped else 200_000
                    copy.write_row(
                        (user, moment, 0, item, heard, is_skipped, "android", "benchmark")
                    )
        connection.execute("UPDATE dataset_info SET timed = true")
        connection.commit()
        connection.autocommit = True
        connection.execute("VACUUM (ANALYZE) interactions, users, tracks")


def add_features_and_graphs(dataset: Dataset) -> None:
    """As the project's own commands do."""
    for script, *arguments in (
        ("materialize_features", "--all"),
        ("generate_interest_graph", "--all-users", "--provider", "local"),
    ):
        command = [sys.executable, str(SCRIPTS / f"{script}.py"), *arguments]
        subprocess.run([*command, f"dataset={dataset.name}"], check=True, capture_output=True)


def counted_tracks(dataset: Dataset) -> int:
    """0 for a dataset that was not filled yet."""
    with dataset.engine.connect() as connection:
        found: int = connection.execute(text("SELECT count(*) FROM tracks")).scalar_one()
    return found


def counted(dataset: Dataset) -> dict[str, int]:
    """What there is."""
    with dataset.engine.connect() as connection:
        return {
            name: connection.execute(text(f"SELECT count(*) FROM {name}")).scalar_one()
            for name in (
                "tracks",
                "users",
                "interactions",
                "user_interest_graph",
                "track_popularity",
                "user_track_interactions",
            )
        }


def save_bundle(path: Path, tracks: int, trees: int) -> None:
    """A bundle with an active ranker, or without one for no trees."""
    bundle = serving_model.bundle(tracks)
    if trees:
        bundle = replace(bundle, ranker=_ranker(trees, bundle.catalogue.play_counts))
    bundles.save(bundle, path)


def _ranker(trees: int, plays: np.ndarray) -> TrainedRanker:
    """Trees of 15 leaves over all columns, a third of whose values are missing."""
    import lightgbm

    chance = np.random.default_rng(11)
    groups, size = 300, 100
    features = chance.standard_normal((groups * size, len(COLUMNS)), np.float32)
    features[chance.random(features.shape) < 0.3] = np.nan
    wanted = np.nansum(features[:, ::3], axis=1) + chance.standard_normal(len(features))
    labels = np.zeros((groups, size), np.int32)
    labels[np.arange(groups), wanted.reshape(groups, size).argmax(axis=1)] = 1
    booster = lightgbm.train(
        {
            "objective": "lambdarank",
            "num_leaves": 15,
            "learning_rate": 0.02,
            "verbosity": -1,
            "num_threads": 1,
            "seed": 1,
        },
        lightgbm.Dataset(features, labels.ravel(), group=np.full(groups, size)),
        num_boost_round=trees,
    )
    return TrainedRanker(
        text=booster.model_to_string(),
        columns=COLUMNS,
        base=1.0,
        plays=np.asarray(plays, np.int64),
        metrics={"protocol": "none: it was trained on noise"},
        is_active=True,
    )
