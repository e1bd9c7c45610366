"""Recommendations for everybody, beside what the model and the service say to one."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pyarrow.parquet as pq
import pytest
from sqlalchemy import text

import plays
from drills import bundle_of
from graphs import DAY, EVENINGS, store_graphs
from musicrec.cli.compose import compose
from musicrec.cli.interests import remembered_interests
from musicrec.cli.recommend_all import recommend_all
from musicrec.database import engine, erasure
from musicrec.database.engine import Dataset
from musicrec.errors import ConfigError, DatabaseError, DataError
from musicrec.features.compute import compute
from musicrec.features.materialize import write
from musicrec.features.views import ALWAYS, STORED
from musicrec.registry import bundle as bundles
from musicrec.registry.bundle import TrainedRanker
from musicrec.serving import keeping
from musicrec.serving.asking import Ask
from musicrec.serving.engine import Surroundings, open_engine
from musicrec.serving.pipeline import Chosen
from musicrec.serving.ranking import COLUMNS
from musicrec.serving.recommender import Recommender
from musicrec.serving.recommending import RecommendService

pytestmark = pytest.mark.slow

AS_OF = DAY + timedelta(days=1)
NAMED = {
    "roads": {"title": "Roads", "artist": "Portishead", "tags": ["trip hop"]},
    "glory box": {"title": "Glory Box", "artist": "Portishead", "tags": ["trip hop"]},
    "teardrop": {"title": "Teardrop", "artist": "Massive Attack", "tags": ["trip hop"]},
    "angel": {"title": "Angel", "artist": "Massive Attack", "tags": ["trip hop"]},
}
TRACKS: dict[str, dict[str, Any]] = NAMED | {f"t{n}": {"energy": n / 200} for n in range(150)}
IDS = list(TRACKS)
LISTENERS = [f"listener-{number}" for number in range(7)]
SILENT, LIKING = "plays nothing", LISTENERS[3]
#: Plays of the newest are of the hour before, so that a session runs.
HISTORY = [
    plays.Play(
        user,
        IDS[(7 * place + 11 * number) % 60],
        AS_OF - timedelta(minutes=10 + 200 * place + number),
        skipped=place == 0 or None,
    )
    for number, user in enumerate(LISTENERS)
    for place in range(3 + 9 * number)
]


def history_of(user: str) -> list[str]:
    return [play.track for play in sorted(HISTORY, key=lambda p: p.at) if play.user == user]


@pytest.fixture(scope="module")
def dataset(postgres) -> Iterator[Dataset]:
    name = f"test_{uuid.uuid4().hex[:16]}"
    with engine.open_dataset(name, create=True) as opened:
        plays.store(opened, HISTORY, TRACKS | {"unknown to the model": {}})
        store_graphs(opened, LISTENERS[5], [EVENINGS])
        with opened.engine.begin() as connection:
            connection.execute(text("INSERT INTO users (user_id) VALUES (:u)"), {"u": SILENT})
            for track, kind in (("t140", "like"), ("t3", "dislike")):
                connection.execute(
                    text(
                        "INSERT INTO feedback (user_key, track_key, occurred_at, kind)"
                        " SELECT user_key, track_key, :at, :kind FROM users, tracks"
                        " WHERE user_id = :user AND track_id = :track"
                    ),
                    {"user": LIKING, "track": track, "kind": kind, "at": DAY},
                )
        yield opened
    engine.drop_dataset(name)


@pytest.fixture(scope="module")
def materialized(dataset, redis) -> None:
    for view in STORED:
        compute(dataset, view, [AS_OF if view.window else ALWAYS], cadence=timedelta(hours=1))
        write(dataset, view, AS_OF, redis)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """``plain.pt``, ``other.pt`` and ``ranked.pt``."""
    folder = tmp_path_factory.mktemp("bundles")
    bundles.save(bundle_of(IDS), folder / "plain.pt")
    bundles.save(bundle_of(IDS, seed=1), folder / "other.pt")
    ranked = replace(bundle_of(IDS), ranker=ranker_of("graph__affinity", *ASIDE))
    bundles.save(ranked, folder / "ranked.pt")
    return folder


#: Of what a ranker sees, what takes a way of its own to it.
ASIDE = ("listening__liked", "source__popular", "user_track_interactions__plays_30d")


def ranker_of(*wanted: str) -> TrainedRanker:
    """One that likes these columns, and SASRec's score a little."""
    columns = [COLUMNS.index(column) for column in wanted]
    seen = np.random.default_rng(3).random((3000, len(COLUMNS)))
    seen[:, columns[1:]] = seen[:, columns[1:]].round()  # yes or no, but for affinity
    booster = lightgbm.train(
        {"num_leaves": 31, "verbose": -1, "num_threads": 1},
        lightgbm.Dataset(seen, seen[:, columns].sum(axis=1)),
        num_boost_round=40,
    )
    plays = np.ones(len(IDS), np.int64)
    return TrainedRanker(booster.model_to_string(), COLUMNS, 0.01, plays, {}, is_active=True)


@pytest.fixture
def run(dataset, files, redis):
    """Runs the command for the dataset; the table is empty as a test begins."""
    with dataset.engine.begin() as connection:
        connection.execute(text("DELETE FROM recommendations"))

    def run(*settings: str, bundle: str = "plain") -> None:
        recommend_all(
            compose(
                "recommend_all",
                [
                    f"bundle={files / bundle}.pt",
                    f"dataset={dataset.name}",
                    f"as_of='{AS_OF.isoformat()}'",
                    "users_at_once=3",
                    *settings,
                ],
            )
        )

    return run


def kept(dataset: Dataset) -> dict[str, list[tuple[str, float]]]:
    """Tracks and scores of each listener in the table, by place; places are 1, 2, 3 …"""
    with dataset.engine.connect() as connection:
        rows = connection.execute(
            text(
                "SELECT user_id, place, track_id, score::float8 FROM recommendations"
                " JOIN users USING (user_key) JOIN tracks USING (track_key) ORDER BY 1, 2"
            )
        ).all()
    found: dict[str, list[tuple[str, float]]] = {}
    for user, place, track, score in rows:
        found.setdefault(user, []).append((track, score))
        assert place == len(found[user])
    return found


def versions(dataset: Dataset) -> set[tuple[str, str]]:
    """Listeners and the versions of their rows."""
    query = (
        "SELECT DISTINCT user_id, model_version FROM recommendations JOIN users USING (user_key)"
    )
    with dataset.engine.connect() as connection:
        return {tuple(row) for row in connection.execute(text(query))}


def served(dataset: Dataset, path: Path, redis, *, k: int = 10) -> dict[str, list[Any]]:
    """What the service itself answers to each listener."""
    around = Surroundings(dataset, redis, remembered_interests)
    opened = open_engine(path, around)

    async def ask() -> dict[str, list[Any]]:
        service = RecommendService(lambda: opened, dataset=dataset, redis=redis, budget_seconds=10)
        try:
            answers = {
                user: await service.recommend(Ask(user, k=k, as_of=AS_OF))
                for user in [*LISTENERS, SILENT]
            }
        finally:
            await service.close()
        assert not any(answer.degraded for answer in answers.values())
        return {
            user: [(track.track_id, pytest.approx(track.score)) for track in answer.tracks]
            for user, answer in answers.items()
        }

    return asyncio.run(ask())


def test_everybody_gets_the_best_of_the_model(run, dataset, files):
    run("k=12")
    found = kept(dataset)
    recommender = Recommender.load(files / "plain.pt")
    assert found.keys() == {*LISTENERS, SILENT}
    for user in LISTENERS:
        skipped = history_of(user)[-1]
        exclude = [skipped, "t3"] if user == LIKING else [skipped]
        best = recommender.recommend(history_of(user), k=12, exclude=exclude)
        assert [track for track, _ in found[user]] == [track.track_id for track in best]


def test_the_service_says_the_same_without_a_ranker(run, dataset, files, materialized, redis):
    run()
    assert kept(dataset) == served(dataset, files / "plain.pt", redis)


def test_the_service_says_the_same_with_ranker_features_and_graphs(
    run, dataset, files, materialized, redis
):
    run("k=15", bundle="ranked")
    found = kept(dataset)
    assert found == served(dataset, files / "ranked.pt", redis, k=15)
    run("k=15", "ranker=false", f"fresh_since='{AS_OF + timedelta(days=36500)}'", bundle="ranked")
    assert kept(dataset) != found


def test_a_ranker_without_its_features_is_refused(run, dataset, monkeypatch):
    monkeypatch.setenv("FEAST_REDIS_HOST", "127.0.0.1")
    monkeypatch.setenv("FEAST_REDIS_PORT", "1")
    with pytest.raises(ConfigError, match=r"the ranker needs online features.*ranker=false"):
        run(bundle="ranked")
    assert kept(dataset) == {}


def test_under_seen_drop_nobody_is_recommended_what_they_heard(run, dataset):
    run("seen=drop", "k=50")
    for user, tracks in kept(dataset).items():
        assert not {track for track, _ in tracks} & set(history_of(user))


def test_what_was_played_at_the_moment_or_later_does_not_count(run, dataset, files):
    before = AS_OF - timedelta(days=4)
    run(f"as_of='{before.isoformat()}'")
    user = LISTENERS[-1]
    history = [p.track for p in sorted(HISTORY, key=lambda p: p.at) if p.user == user]
    history = history[: sum(p.at < before for p in HISTORY if p.user == user)]
    best = Recommender.load(files / "plain.pt").recommend(history)
    assert 10 < len(history) < len(history_of(user))
    assert [track for track, _ in kept(dataset)[user]] == [track.track_id for track in best]


def test_a_stopped_run_keeps_whole_batches_and_goes_on_where_it_was(run, dataset, monkeypatch):
    run()
    whole = kept(dataset)
    with dataset.engine.begin() as connection:
        connection.execute(text("DELETE FROM recommendations"))
    keep, batches = keeping.TableKeeper.keep, []

    def stopping(self, batch):
        batches.append([one.user_id for one in batch])
        if len(batches) == 2:
            raise KeyboardInterrupt
        return keep(self, batch)

    monkeypatch.setattr(keeping.TableKeeper, "keep", stopping)
    with pytest.raises(KeyboardInterrupt, match="go on with the same command"):
        run()
    assert kept(dataset) == {user: whole[user] for user in batches[0]}
    batches[:] = [[], []]
    run()
    assert batches[2:] == [LISTENERS[2:5], LISTENERS[5:]]
    assert kept(dataset) == whole


def test_who_has_theirs_is_left_alone_and_a_newcomer_is_not(run, dataset, capsys):
    run()
    with dataset.engine.begin() as connection:
        connection.execute(
            text(
                "DELETE FROM recommendations WHERE user_key ="
                " (SELECT user_key FROM users WHERE user_id = :user)"
            ),
            {"user": LISTENERS[2]},
        )
    run()
    assert "recommended for 1 listeners" in capsys.readouterr().out
    run()
    assert "everybody has" in capsys.readouterr().out


def test_another_model_or_number_of_tracks_replaces_what_is_there(run, dataset, files):
    run()
    run(bundle="other")
    version = bundles.load(files / "other.pt").version
    assert versions(dataset) == {(user, version) for user in [*LISTENERS, SILENT]}
    run("k=4", bundle="other")
    assert {len(tracks) for tracks in kept(dataset).values()} == {4}


def test_a_file_holds_what_the_table_does(run, dataset, tmp_path, files):
    run()
    run(f"output={tmp_path / 'all.parquet'}")
    rows = pq.read_table(tmp_path / "all.parquet").to_pylist()
    found: dict[str, list[tuple[str, float]]] = {}
    for row in rows:
        found.setdefault(row["user_id"], []).append((row["track_id"], row["score"]))
        assert row["place"] == len(found[row["user_id"]])
    assert found == kept(dataset)
    assert {row["model_version"] for row in rows} == {bundles.load(files / "plain.pt").version}


def test_a_run_that_fails_leaves_the_file_of_before(run, tmp_path, monkeypatch):
    path = tmp_path / "all.parquet"
    path.write_bytes(b"of before")
    monkeypatch.setattr(keeping, "_GROUP_ROWS", 1)

    def lost(self, batch):
        raise DatabaseError("lost")

    monkeypatch.setattr(keeping.ParquetKeeper, "keep", lost)
    with pytest.raises(DatabaseError):
        run(f"output={path}")
    assert path.read_bytes() == b"of before"
    assert [*tmp_path.iterdir()] == [path]


def test_a_model_of_other_tracks_can_only_be_kept_in_a_file(run, dataset, files, tmp_path):
    bundles.save(bundle_of([*IDS, "of another dataset"]), files / "strange.pt")
    with pytest.raises(DataError, match=r"1 of the 155 tracks .* output="):
        run(bundle="strange")
    run(f"output={tmp_path / 'all.parquet'}", bundle="strange")
    assert pq.read_table(tmp_path / "all.parquet").num_rows == 10 * (len(LISTENERS) + 1)


def test_only_one_run_at_a_time_replaces_the_table(run, dataset):
    with keeping.only_one(dataset), pytest.raises(DatabaseError, match="another process"):
        run()


def test_who_is_forgotten_while_a_batch_is_made_is_not_kept(run, dataset):
    with dataset.engine.begin() as connection:
        connection.execute(text("INSERT INTO users VALUES (999, 'forgotten')"))
    keeper = keeping.TableKeeper(dataset, list(range(200)), "v")
    batch = [keeping.Recommended(999, "forgotten", [Chosen(7, 1.0, ("sasrec",))])]
    assert keeper.keep(batch) == 1
    erasure.erase(dataset, "forgotten")
    assert keeper.keep(batch) == 0
    with dataset.engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM recommendations")) == 0


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("dataset=null", "say dataset=NAME"),
        ("k=0", "k=0 is not within 1 to 200"),
        ("seen=never", "seen='never' is not one of keep, drop"),
        ("ranker=true", "has no ranker; train one with scripts/train_ranker.py"),
        ("candidates=3", "candidates=3 is not within"),
        ("fresh_since=soon", "fresh_since=soon is no ISO date"),
    ],
)
def test_a_setting_that_cannot_work_is_named(run, setting, said):
    with pytest.raises(ConfigError, match=said):
        run(setting)
