"""A listener is erased wherever their data lives, and nobody else is."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
import torch
from sqlalchemy import text

from commands import command, done
from musicrec.cli import receipts
from musicrec.cli.compose import compose
from musicrec.cli.flags import quoted
from musicrec.cli.forget_user import forget_user
from musicrec.database import engine, erasure, personal
from musicrec.database.engine import Dataset
from musicrec.database.home import home
from musicrec.database.personal import NOBODYS, OUTSIDE, PLACES
from musicrec.database.redis_address import RedisAddress
from musicrec.errors import ConfigError, DatabaseError
from musicrec.features import forgotten, layout
from musicrec.features.compute import compute
from musicrec.features.connection import Connection
from musicrec.features.materialize import write
from musicrec.features.resp import encoded
from musicrec.features.tables import make, psycopg_connection
from musicrec.features.views import STORED
from musicrec.interactions.catalogue import Catalogue
from musicrec.models.sasrec import SASRec
from musicrec.registry import bundle
from musicrec.sources import stream
from musicrec.sources.loader import import_source
from musicrec.sources.reading.listens import ListenColumns
from musicrec.sources.table import TableSource
from plays import Play, store

pytestmark = pytest.mark.slow

END = datetime(2024, 3, 12, tzinfo=UTC)
DAY = timedelta(days=1)

#: Whoever is forgotten here, by an id that is hard to write.
ALICE = "al*ice/O'☃\"1"
#: Somebody with an id that ends as hers does, and one that begins so.
OTHERS = ("bob", f"x{ALICE}", f"{ALICE}x")

TRACKS: dict[str, dict[str, Any]] = {"one": {"energy": 0.5}, "two": {}, "three": {}}


def plays() -> list[Play]:
    return [
        Play(user, track, END - DAY * (1 + place))
        for user in (ALICE, *OTHERS)
        for place, track in enumerate(TRACKS)
    ]


def refused_lines() -> list[tuple[str, bool]]:
    """Lines that an import refused, and whether they name Alice."""
    csv = ALICE.replace('"', '""')
    return [
        (f"{ALICE}\tone\tyesterday", True),
        (f'"{csv}",one,yesterday', True),
        (json.dumps({"user": ALICE, "track": "one"}), True),
        (json.dumps({"user": ALICE}, ensure_ascii=False), True),
        (json.dumps({"user": ALICE}).replace("/", "\\/").replace("2603", "2603".upper()), True),
        (f"x{ALICE},one,yesterday", False),
        (f"{ALICE}x,one,yesterday", False),
        ("bob,one,yesterday", False),
        ("bob" + "," * 997, True),  # cut: the end is not there
    ]


def fill(dataset: Dataset) -> None:
    """Everything that the project keeps of listeners but for features."""
    store(dataset, plays(), TRACKS)
    with dataset.engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO imports (fingerprint, source, format, last_line, rows_added,"
                " rows_known, rows_rejected) VALUES ('f', :source, 'test', 9, 9, 0, 9)"
            ),
            {"source": f"/exports/{ALICE}/plays.csv"},
        )
        for line, (raw, _) in enumerate(refused_lines()):
            connection.execute(
                text("INSERT INTO rejected_rows VALUES ('f', :line, :reason, :raw)"),
                {"line": line, "raw": raw, "reason": f"/exports/{ALICE}.csv: no time"},
            )
        for user in (ALICE, *OTHERS):
            write_graph(connection, user)
    stream.snapshot(dataset, home() / "snapshots")


def write_graph(connection: Any, user: str) -> None:
    key = connection.scalar(text("SELECT user_key FROM users WHERE user_id = :id"), {"id": user})
    graph_id = connection.scalar(
        text(
            "INSERT INTO user_interest_graph (user_key, version, is_current, valid_from, graph,"
            " provider, model, prompt_hash, input_hash, input_tokens, output_tokens) VALUES"
            " (:key, 1, true, now(), :graph, 'openai', 'gpt', 'p', 'i', 1, 1) RETURNING graph_id"
        ),
        {"key": key, "graph": json.dumps({"of": user})},
    )
    for statement in (
        "INSERT INTO interest_nodes VALUES (:graph, 0, 'genre', :user, 1, 'long')",
        "INSERT INTO interest_edges VALUES (:graph, 0, 1, 'with', 1)",
        "INSERT INTO graph_tasks (user_key, provider, model, state, reason)"
        " VALUES (:key, 'openai', 'gpt', 'done', :user)",
        "INSERT INTO graph_calls (user_key, run_id, provider, model, prompt_hash, input_hash,"
        " round, state, problem) VALUES (:key, 1, 'openai', 'gpt', 'p', 'i', 'first', 'answered',"
        " :user)",
        "INSERT INTO feedback (user_key, track_key, occurred_at, kind)"
        " VALUES (:key, 1, '2014-03-01', 'like')",
        "INSERT INTO recommendations (user_key, place, track_key, score, model_version)"
        " VALUES (:key, 1, 1, 0.5, :user)",
    ):
        connection.execute(text(statement), {"graph": graph_id, "key": key, "user": user})


def write_bundle(path: Path, dataset: str, fingerprint: str, made_at: datetime) -> None:
    architecture = {"catalogue_size": 3, "dim": 4, "heads": 1, "blocks": 1, "max_length": 4}
    made = bundle.Bundle(
        model=SASRec(**architecture),
        catalogue=Catalogue(list(TRACKS), [None] * 3, [None] * 3, np.ones(3, np.int64)),
        architecture=architecture,
        config={"listener": None},
        metrics={"protocol": {"dataset": dataset, "seen": "keep"}},
        data_fingerprint=fingerprint,
        commit="unknown",
        created_at=made_at.isoformat(timespec="seconds"),
    )
    bundle.save(made, path)


@pytest.fixture
def filled(dataset, tmp_path, monkeypatch) -> Iterator[Dataset]:
    """A dataset with Alice and others in it; the working folder has nothing in it."""
    monkeypatch.chdir(tmp_path)
    fill(dataset)
    yield dataset
    for folder in (home() / "snapshots").glob(f"*{dataset.name}-*"):
        shutil.rmtree(folder)


@pytest.fixture
def served(filled, redis) -> Iterator[Dataset]:
    """The same with features, in Postgres and in Redis."""
    for view in STORED:
        compute(filled, view, [END])
        write(filled, view, END, redis)
    yield filled
    with Connection(redis) as connection:
        (keys,) = connection.ask(encoded(b"KEYS", b"*" + filled.name.encode()), 1)
        if keys:
            connection.ask(encoded(b"DEL", *keys), 1)


def forget(dataset: Dataset, user: str = ALICE, *settings: str) -> dict[str, Any]:
    """The receipt."""
    settings = ("yes=true", *settings)
    forget_user(
        compose("forget_user", [f"dataset={dataset.name}", f"user={quoted(user)}", *settings])
    )
    path = receipts.path_of(home() / "receipts", dataset.name, user)
    return dict(json.loads(path.read_text()))


def dump(dataset: Dataset) -> dict[str, list[str]]:
    """Every row of every table as text."""
    with dataset.engine.connect() as connection:
        return {
            table: list(connection.scalars(text(f"SELECT t::text FROM {table} AS t ORDER BY 1")))
            for table in tables(dataset)
        }


def spellings(user: str) -> set[str]:
    """An id as itself, and as JSON writes it."""
    return {user, json.dumps(user)[1:-1], json.dumps(user, ensure_ascii=False)[1:-1]}


def names_alice(written: str) -> bool:
    """Whether the id stands in a row as text, where quotes and backslashes are doubled, or not."""
    while '""' in written:
        written = written.replace('""', '"')
    written = written.replace("\\\\", "\\").replace("\\/", "/")
    for other in spellings(f"x{ALICE}") | spellings(f"{ALICE}x"):
        written = written.replace(other, "")
    return any(word in written for word in spellings(ALICE))


def spelled_in(rows_of: dict[str, list[str]]) -> set[str]:
    """The tables in which Alice's id stands."""
    return {table for table, rows in rows_of.items() if any(map(names_alice, rows))}


def tables(dataset: Dataset) -> set[str]:
    with dataset.engine.connect() as connection:
        return set(
            connection.scalars(
                text("SELECT table_name FROM information_schema.tables WHERE table_schema = :name"),
                {"name": dataset.name},
            )
        )


def hashes(redis: RedisAddress, project: str) -> dict[bytes, list[bytes]]:
    with Connection(redis) as connection:
        (keys,) = connection.ask(encoded(b"KEYS", b"*" + project.encode()), 1)
        return {key: sorted(connection.ask(encoded(b"HGETALL", key), 1)[0]) for key in keys}


def scalar(dataset: Dataset, query: str) -> Any:
    with dataset.engine.connect() as connection:
        return connection.scalar(text(query))


def test_every_table_is_on_the_list_of_where_user_data_lives(dataset):
    with psycopg_connection(dataset, "make tables") as connection:
        for view in STORED:
            make(connection, dataset.name, view)
    listed = {place.table for place in PLACES} | NOBODYS.keys()
    assert tables(dataset) - listed == set(), "list these in musicrec.database.personal"
    assert listed - tables(dataset) == set(), "these are there no more"


def test_no_table_with_a_column_of_users_is_listed_as_nobodys(dataset):
    with psycopg_connection(dataset, "make tables") as connection:
        for view in STORED:
            make(connection, dataset.name, view)
    with dataset.engine.connect() as connection:
        of_users = connection.scalars(
            text(
                "SELECT DISTINCT table_name FROM information_schema.columns"
                " WHERE table_schema = :name AND column_name ~ '^(user|listener)(_|$)'"
            ),
            {"name": dataset.name},
        ).all()
    assert "users" in of_users
    assert set(of_users) & NOBODYS.keys() == set()


@pytest.mark.parametrize("place", [name for name, said in OUTSIDE.items() if "musicrec" in said])
def test_what_erases_data_outside_of_postgres_is_there(place):
    module, _, _ = OUTSIDE[place].partition(":")
    assert callable(importlib.import_module(module).erase)


def test_the_command_leaves_the_user_nowhere_and_everybody_else_as_they_were(
    served, redis, tmp_path
):
    before, online = dump(served), hashes(redis, served.name)
    assert spelled_in(before) == {place.table for place in PLACES} - {
        "feedback",
        "interactions",
        "interest_edges",
    }
    said = done(
        command("forget_user", f"dataset={served.name}", "--user-id", ALICE, "--yes", cwd=tmp_path)
    )
    assert "the user is erased from dataset" in said
    after = dump(served)
    assert spelled_in(after) == set()
    for table in {place.table for place in PLACES} - {"imports", "rejected_rows"}:
        assert len(after[table]) < len(before[table]), table
        assert set(after[table]) < set(before[table])
    alices = {key for key in online if key not in hashes(redis, served.name)}
    assert len(alices) == 1 + len(TRACKS)
    assert all(ALICE.encode() in key for key in alices)
    assert hashes(redis, served.name) == {k: v for k, v in online.items() if k not in alices}
    assert not list((home() / "snapshots").glob(f"{served.name}-*"))
    for file in (home() / "receipts").glob(f"{served.name}-*"):
        assert not names_alice(file.read_text())


def test_the_receipt_counts_what_was_found_and_that_nothing_is_left(served):
    receipt = forget(served)
    found = receipt["found"]
    assert found["listens"] == found["snapshots"] * 3 == 3
    assert found["online features"] == 1 + len(TRACKS)
    assert found["interest nodes"] == found["calls to LLMs, with replies"] == found["user"] == 1
    assert found["lines refused at import"] == sum(named for _, named in refused_lines())
    assert set(receipt["left"].values()) == {0}
    assert receipt["finished_at"] is not None
    assert receipt["models"] == ["openai gpt"]
    assert receipt["user_sha256"] == receipts.user_sha256(ALICE)


def test_a_refused_line_is_emptied_only_if_it_may_be_the_users(filled):
    forget(filled)
    with filled.engine.connect() as connection:
        raws = connection.scalars(text("SELECT raw FROM rejected_rows ORDER BY line")).all()
    assert [raw == "" for raw in raws] == [named for _, named in refused_lines()]


@pytest.mark.parametrize("user", ["4", "ann", "Ünï çødé 🎵", "tab\there", "back\\slash"])
def test_an_id_is_found_as_csv_and_json_write_it(dataset, user):
    lines = [f"7,{user},1", json.dumps([user]), json.dumps([user], ensure_ascii=False)]
    others = [f"7,1{user},1", f"7,{user}4,1", "7,8,1"]
    with dataset.engine.connect() as connection:
        found = [
            connection.scalar(
                text("SELECT CAST(:line AS text) ~ :named"),
                {"line": line, "named": personal.named_in_line(user)},
            )
            for line in lines + others
        ]
    assert found == [True] * len(lines) + [False] * len(others)


def test_lines_of_a_format_that_names_nobody_are_emptied_with_its_user(dataset, tmp_path):
    path = tmp_path / "plays.csv"
    path.write_text("song,ts\n" + "".join(f"one,{n}\n" for n in range(1, 20)) + "secret,when\n")
    columns = ListenColumns(item="song", time="ts")
    import_source(dataset, TableSource(path, columns=columns, time="unix_s", user="carol"))
    assert scalar(dataset, "SELECT raw FROM rejected_rows") == "secret,when"
    erasure.erase(dataset, "carol")
    assert scalar(dataset, "SELECT raw FROM rejected_rows") == ""


def test_a_second_time_changes_nothing(served):
    first = forget(served)
    state = dump(served)
    second = forget(served)
    assert dump(served) == state
    assert set(second["found"].values()) == {0}
    assert second["data_fingerprints"] == first["data_fingerprints"]


def test_without_yes_nothing_is_erased(filled, capsys):
    before = dump(filled)
    with pytest.raises(ConfigError, match="nothing was erased; add yes=true"):
        forget(filled, ALICE, "yes=false")
    assert re.search(r"listens +│ +3 ", capsys.readouterr().out)
    assert dump(filled) == before
    assert not list((home() / "receipts").glob(f"{filled.name}-*"))


def test_a_run_that_was_killed_after_postgres_is_finished_by_the_next(served, redis, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(forgotten, "erase", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        forget(served)
    assert scalar(served, "SELECT count(*) FROM users") == len(OTHERS)
    assert forgotten.keys_of(served.name, ALICE, redis)
    receipt = forget(served)
    assert forgotten.keys_of(served.name, ALICE, redis) == []
    assert receipt["found"]["listens"] == 3
    assert receipt["data_fingerprints"]
    assert receipt["finished_at"] is not None


def test_the_receipt_names_the_weights_that_hold_the_user_and_no_others(filled, tmp_path):
    (folder,) = (home() / "snapshots").glob(f"{filled.name}-*")
    trained_on = json.loads((folder / "snapshot.json").read_text())["fingerprint"]
    now = datetime.now(UTC)
    write_bundle(tmp_path / "outputs/a/model.pt", filled.name, trained_on, now)
    write_bundle(tmp_path / "outputs/b/model.pt", filled.name, "gone", now)
    write_bundle(tmp_path / "outputs/old/model.pt", filled.name, "gone", now - DAY)
    write_bundle(tmp_path / "outputs/other/model.pt", "another", "gone", now)
    checkpoint = tmp_path / "outputs/a/checkpoints/last.ckpt"
    checkpoint.parent.mkdir()
    torch.save({"identity": {"data_fingerprint": trained_on}}, checkpoint)
    with checkpoint.open("ab") as file:
        file.write(b"sixteen bytes of")  # as checkpoints end
    (tmp_path / "model.pt").write_bytes(b"torn")
    expected = {
        "outputs/a/model.pt": "trained",
        "outputs/a/checkpoints/last.ckpt": "trained",
        "outputs/b/model.pt": "maybe",
        "model.pt": "unreadable",
    }
    for _ in range(2):  # the second run has neither snapshot nor user to go by
        receipt = forget(filled)
        named = {file["path"]: file["verdict"] for file in receipt["trained"]}
        assert named == {str(tmp_path / path): verdict for path, verdict in expected.items()}


def test_a_snapshot_without_the_user_stays_and_a_dead_half_of_one_goes(filled):
    forget(filled)
    clean = stream.snapshot(filled, home() / "snapshots").folder
    dead = clean.with_name(f".{clean.name}.{2**22 + 1}")
    dead.mkdir()
    forget(filled)
    assert clean.is_dir()
    assert not dead.exists()


def test_keys_of_another_project_and_keys_that_are_none_of_feasts_are_left(filled, redis):
    other = f"x{filled.name}".encode()
    prefix = layout.key_prefix(("user_id",))
    strangers = [
        layout.key(prefix, (ALICE,), other),
        ALICE.encode() + filled.name.encode(),
        b"\x01\x00\x00\x00" + ALICE.encode() + filled.name.encode(),
    ]
    with Connection(redis) as connection:
        for key in strangers:
            connection.ask(encoded(b"HSET", key, b"a", b"b"), 1)
        try:
            forgotten.erase(filled.name, ALICE, redis)
            assert connection.ask(encoded(b"EXISTS", *strangers), 1) == [len(strangers)]
        finally:
            connection.ask(encoded(b"DEL", *strangers), 1)


def test_an_import_under_way_is_not_run_into(filled, monkeypatch):
    monkeypatch.setattr(erasure, "IMPORT_SECONDS", 1)
    with filled.address.connect() as session:
        session.execute(
            "SELECT pg_advisory_lock_shared(hashtextextended(%s, 0))",
            (erasure.import_lock(filled.name),),
        )
        with pytest.raises(DatabaseError, match=r"an import into .* is running"):
            erasure.erase(filled, ALICE)
    assert scalar(filled, "SELECT count(*) FROM users") == 1 + len(OTHERS)


def test_an_import_takes_the_lock_that_keeps_erasure_out(dataset, tmp_path, monkeypatch):
    path = tmp_path / "plays.csv"
    path.write_text("who,song,ts\n" + "".join(f"ann,one,{n}\n" for n in range(1, 9)))
    columns = ListenColumns(user="who", item="song", time="ts")
    monkeypatch.setattr(erasure, "IMPORT_SECONDS", 1)

    def meanwhile(_: object) -> None:
        if not refused:
            with pytest.raises(DatabaseError, match="is running") as error:
                erasure.erase(dataset, "ann")
            refused.append(error)

    refused: list[object] = []
    import_source(dataset, TableSource(path, columns=columns, time="unix_s"), on_progress=meanwhile)
    assert refused


def test_others_who_write_all_the_time_make_it_give_up_with_nothing_erased(filled, monkeypatch):
    monkeypatch.setattr(erasure, "WRITERS_SECONDS", 0.5)
    with filled.address.connect(options=f"-c search_path={filled.name}") as session:
        session.execute("UPDATE user_interest_graph SET provider = provider")
        with pytest.raises(DatabaseError, match="nothing was erased"):
            erasure.erase(filled, ALICE)
    assert scalar(filled, "SELECT count(*) FROM users") == 1 + len(OTHERS)


def test_a_graph_being_stored_and_an_erasure_do_not_lock_each_other_out(filled):
    with (
        ThreadPoolExecutor(1) as pool,
        filled.address.connect(options=f"-c search_path={filled.name}") as session,
    ):
        session.execute("SELECT FROM users WHERE user_id = %s FOR UPDATE", (ALICE,))
        erasing = pool.submit(erasure.erase, filled, ALICE)
        time.sleep(0.5)
        session.execute("UPDATE user_interest_graph SET provider = provider")
        session.commit()
        assert erasing.result()["interest graphs"] == 1


def test_who_reads_the_listens_of_before_is_waited_for(filled, monkeypatch):
    monkeypatch.setattr(erasure, "READERS_SECONDS", 0.5)
    with filled.address.connect(options=f"-c search_path={filled.name}") as session:
        session.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        session.execute("SELECT count(*) FROM interactions")
        with pytest.raises(DatabaseError, match="reading the listens of before"):
            erasure.erase(filled, ALICE)
    assert set(erasure.erase(filled, ALICE).values()) == {0}


def test_what_a_late_reply_wrote_of_a_forgotten_user_goes_with_the_next_run(filled):
    forget(filled)
    with filled.engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO graph_calls (user_key, run_id, provider, model, prompt_hash,"
                " input_hash, round, state) VALUES (99999, 1, 'openai', 'gpt', 'p', 'i', 'first',"
                " 'answered')"
            )
        )
    forget(filled)
    assert scalar(filled, "SELECT count(*) FROM graph_calls") == len(OTHERS)


def test_who_is_to_be_forgotten_must_be_said(dataset):
    with pytest.raises(ConfigError, match="user= is missing"):
        forget_user(compose("forget_user", [f"dataset={dataset.name}", "yes=true"]))


def test_a_user_nobody_knows_is_no_error_but_said(filled, capsys):
    forget(filled, "nobody")
    assert "does not know this user" in capsys.readouterr().out
    assert scalar(filled, "SELECT count(*) FROM users") == 1 + len(OTHERS)


def test_a_snapshot_of_another_dataset_stays(filled):
    name = f"test_{uuid.uuid4().hex[:16]}"
    with engine.open_dataset(name, create=True) as other:
        store(other, plays(), TRACKS)
        kept = stream.snapshot(other, home() / "snapshots").folder
        try:
            forget(filled)
            assert kept.is_dir()
        finally:
            shutil.rmtree(kept)
    engine.drop_dataset(name)
