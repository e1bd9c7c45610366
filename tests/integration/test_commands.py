"""The commands as people type them, each in a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pytest

from commands import assert_same_weights, command, done, finished, wait_for
from damage import flip_a_byte
from musicrec import Recommender
from musicrec.cli import outputs
from musicrec.database import cluster, embedded, engine

pytestmark = pytest.mark.slow

FAST = ("debug=fast", "trainer=cpu")


@pytest.fixture(scope="module")
def trained(postgres, tmp_path_factory) -> tuple[Path, str]:
    """A run's folder and what it said; the older flags set what they set."""
    folder = tmp_path_factory.mktemp("train")
    flags = [
        "--epochs",
        "2",
        "--batch-size",
        "32",
        "--max-seq-len",
        "20",
        "--output",
        "elsewhere.pt",
    ]
    out = done(command("train_transformer", *FAST, *flags, f"hydra.run.dir={folder}", cwd=folder))
    return folder, out


def test_a_run_leaves_everything_it_promises(trained):
    folder, _ = trained
    for path in (
        "model.pt",
        "metrics.json",
        ".hydra/config.yaml",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
    ):
        assert (folder / path).is_file(), path
    assert list(folder.glob("tensorboard/events.out.tfevents.*"))


def test_the_metrics_stand_beside_the_baselines_with_their_protocol(trained):
    metrics = json.loads((trained[0] / "metrics.json").read_text())
    for who in ("", "popularity/", "personal_top/", "markov/", "oracle/"):
        for metric in ("ndcg_10", "hit_rate_20", "repeat/ndcg_10", "explore/ndcg_10", "mrr"):
            assert 0 <= metrics[f"test/{who}{metric}"] <= 1
    assert metrics["test/oracle/ndcg_10"] > metrics["test/markov/ndcg_10"]
    assert {"val/ndcg_10", "train/seconds", "train/tokens_per_second"} <= set(metrics)
    assert metrics["peak_rss_mb"] > 100
    protocol = metrics["protocol"]
    assert protocol["split"] == "leave_one_out"
    assert protocol["seen"] == "keep"
    assert protocol["users"] == 60
    assert {"catalogue", "seed", "data_fingerprint", "commit"} <= set(protocol)


def test_the_screen_shows_a_verdict_ten_named_tracks_and_what_next(trained):
    out = trained[1]
    assert "oracle" in out
    assert "the best baseline" in out
    assert "ten tracks to play next" in out
    assert "│ 10 │" in out
    assert "next: python scripts/recommend.py" in out


def test_the_older_flags_set_what_they_used_to(trained):
    folder, _ = trained
    config = Recommender.load(folder / "elsewhere.pt").bundle.config
    assert config["trainer"]["max_epochs"] == 2
    assert config["batch_size"] == 32
    assert config["model"]["max_length"] == 20


def test_hyperparameters_and_curves_are_in_tensorboard(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained[0] / "tensorboard")).Reload()
    assert {"train/loss", "val/ndcg_10", "val/hit_rate_20"} <= set(events.Tags()["scalars"])
    assert any("hparams" in tag for tag in events.summary_metadata)


def test_recommend_answers_for_a_listener_of_the_dataset(trained, tmp_path):
    folder, _ = trained
    dataset = json.loads((folder / "metrics.json").read_text())["protocol"]["dataset"]
    with engine.open_dataset(dataset) as opened, opened.engine.connect() as connection:
        user = connection.exec_driver_sql("SELECT user_id FROM users LIMIT 1").scalar_one()
    arguments = (f"bundle={folder}/model.pt", f"dataset={dataset}", f"user={user}", "k=7")
    out = done(command("recommend", *arguments, cwd=tmp_path))
    assert f"for user {user}" in out
    assert "│ 7 " in out
    assert "│ 8 " not in out


def test_recommend_says_why_once_a_graph_was_made_of_the_listener(trained, tmp_path):
    folder, _ = trained
    dataset = json.loads((folder / "metrics.json").read_text())["protocol"]["dataset"]
    with engine.open_dataset(dataset) as opened, opened.engine.connect() as connection:
        user = connection.exec_driver_sql(
            "SELECT user_id FROM users JOIN interactions USING (user_key)"
            " GROUP BY user_id ORDER BY count(*) DESC, user_id LIMIT 1"
        ).scalar_one()
    arguments = (f"bundle={folder}/model.pt", f"dataset={dataset}", f"user={user}")
    code, _, err = finished(command("recommend", *arguments, "graph_weight=1", cwd=tmp_path))
    assert code == 2
    assert "has no interest graph; make one with scripts/generate_interest_graph.py" in err
    graph = (f"dataset={dataset}", "--user-id", user, "--provider", "local")
    done(command("generate_interest_graph", *graph, cwd=tmp_path))
    plain, weighted = (
        done(command("recommend", *arguments, *more, cwd=tmp_path, COLUMNS="200"))
        for more in ((), ("graph_weight=5", "output=answer.json"))
    )
    assert "because" in plain
    assert weighted != plain
    assert any(json.loads((tmp_path / "answer.json").read_text())["reasons"])


def test_recommend_needs_no_database_for_a_history(trained, tmp_path):
    folder, _ = trained
    known = Recommender.load(folder / "model.pt").bundle.catalogue.track_ids[0]
    answer = tmp_path / "answer.json"
    out = done(
        command(
            "recommend",
            f"bundle={folder}/model.pt",
            f"history=[{known},no-such-track]",
            f"output={answer}",
            cwd=tmp_path,
            DATABASE_URL="postgresql://nobody@127.0.0.1:1/none",
        )
    )
    assert "unknown to the model and left out: 1 (no-such-track)" in out
    assert len(json.loads(answer.read_text())["tracks"]) == 10


def test_a_sweep_trains_every_combination_and_reports_the_best(postgres, tmp_path):
    out = done(
        command(
            "train_transformer",
            "-m",
            *FAST,
            "trainer.max_epochs=1",
            "model=tiny,small",
            "seed=1,2",
            f"hydra.sweep.dir={tmp_path}/sweep",
            cwd=tmp_path,
        )
    )
    runs = sorted((tmp_path / "sweep").glob("*/metrics.json"))
    assert len(runs) == 4
    dims = [Recommender.load(run.parent / "model.pt").bundle.architecture["dim"] for run in runs]
    assert dims == [32, 32, 64, 64]
    reached = [json.loads(run.read_text())["val/ndcg_10"] for run in runs]
    table = out[out.index("4 runs, by val/ndcg_10") :]
    shown = [float(value) for value in re.findall(r"│ (0\.\d{4}) ", table)]
    assert shown == sorted((round(value, 4) for value in reached), reverse=True)


LONGER = (*FAST, "batch_size=4", "trainer.max_epochs=3", "checkpoint_every_steps=3", "refit=true")


def test_a_training_killed_in_the_middle_ends_with_the_same_model(postgres, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    done(command("train_transformer", *LONGER, f"hydra.run.dir={whole}", cwd=tmp_path))
    # The workers gather ahead, and change nothing.
    process = command(
        "train_transformer", *LONGER, "num_workers=2", f"hydra.run.dir={cut}", cwd=tmp_path
    )
    wait_for(cut / "checkpoints" / "last.ckpt", process)
    process.send_signal(signal.SIGKILL)
    assert finished(process)[0] == -signal.SIGKILL
    assert not (cut / "model.pt").exists()
    resumed = (*LONGER, "num_workers=2", f"hydra.run.dir={cut}", "ckpt_path=last")
    done(command("train_transformer", *resumed, cwd=tmp_path))
    assert_same_weights(whole, cut)


def test_an_interrupted_training_says_how_to_go_on(postgres, tmp_path):
    run = tmp_path / "run"
    settings = (*FAST, "trainer.max_epochs=500", "patience=500", f"hydra.run.dir={run}")
    process = command("train_transformer", *settings, cwd=tmp_path)
    wait_for(run / "checkpoints" / "last.ckpt", process)
    while process.poll() is None:  # Python may swallow one that arrives in a destructor
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):  # a second one would cut the ending short
            process.wait(timeout=30)
    code, _, err = finished(process)
    assert code == 130
    assert err.strip().splitlines()[-1] == (
        "interrupted: go on with the same command and ckpt_path=last hydra.run.dir=run"
    )


def test_no_password_reaches_anything_a_run_writes(postgres, tmp_path):
    if postgres is not None:
        pytest.skip("the server named by MUSICREC_TEST_DATABASE_URL has a password of its own")
    secret = "s3cret-Passw0rd"
    socket = quote(str(embedded.running_server()), safe="")
    url = f"postgresql://{cluster.USER}:{secret}@/{cluster.DATABASE}?host={socket}"
    code, out, err = finished(
        command(
            "train_transformer",
            *FAST,
            f"hydra.run.dir={tmp_path}/run",
            cwd=tmp_path,
            DATABASE_URL=url,
        )
    )
    assert code == 0, err
    assert secret not in out + err
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or secret.encode() not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("script", "arguments", "environment", "said"),
    [
        ("train_transformer", ["modle=small"], {}, "'modle' (did you mean 'model'?)"),
        ("train_transformer", ["model.heads=3", *FAST], {}, "model.heads=3 does not divide"),
        ("train_transformer", ["data=postgres"], {}, "add dataset=NAME"),
        ("train_transformer", ["data=postgres", "dataset=nothing_here"], {}, "no dataset"),
        (
            "train_transformer",
            ["data=postgres", "dataset=mine"],
            {"DATABASE_URL": "postgresql://me:pw@127.0.0.1:1/none"},
            "127.0.0.1",
        ),
        ("recommend", ["bundle=nowhere.pt", "history=[a]"], {}, "no bundle at nowhere.pt"),
        ("recommend", ["--user", "3"], {}, "unknown flag --user"),
        ("train_transformer", ["patience=0"], {}, "patience=0 must be at least 1"),
        ("train_transformer", ["output=/proc/x/model.pt"], {}, "output=/proc/x/model.pt: no file"),
        ("train_transformer", ["ckpt_path=/dev/null"], {}, "ckpt_path=/dev/null: there is no"),
        ("import_interactions", ["data=sequences", "dataset=x", "data.path=no.txt"], {}, "no.txt"),
    ],
)
def test_a_mistake_is_one_line_with_the_way_out(
    postgres, tmp_path, script, arguments, environment, said
):
    code, _, err = finished(command(script, *arguments, cwd=tmp_path, **environment))
    assert code == 2
    assert "Traceback" not in err
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    assert said in lines[0]
    assert "pw" not in lines[0].replace("password", "")


def test_a_refused_file_leaves_no_dataset_behind(postgres, tmp_path):
    name = f"refused_{os.getpid()}"
    (tmp_path / "places.txt").write_text("".join(f"1::{n}::5::{n}\n" for n in range(50)))
    arguments = ("data=movielens", f"dataset={name}", f"data.path={tmp_path}/places.txt")
    code, _, err = finished(command("import_interactions", *arguments, cwd=tmp_path))
    assert code == 2
    assert "say data.time=order" in err
    assert name not in engine.dataset_names()


def test_a_finished_runs_folder_is_not_written_over(trained):
    folder, _ = trained
    before = (folder / "model.pt").read_bytes()
    run = command("train_transformer", *FAST, f"hydra.run.dir={folder}", cwd=folder)
    code, _, err = finished(run)
    assert code == 2
    assert "holds a finished run's model.pt" in err
    assert (folder / "model.pt").read_bytes() == before


def test_two_trainings_do_not_share_a_folder(postgres, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    outputs.claim(run, None)  # this process is the other training
    code, _, err = finished(
        command("train_transformer", *FAST, f"hydra.run.dir={run}", cwd=tmp_path)
    )
    assert code == 2
    assert err.strip() == (
        f"error: another training is writing into {run}; wait for its end, or give this one "
        "another hydra.run.dir"
    )
    assert not (run / "model.pt").exists()


def test_a_damaged_checkpoint_is_said_and_the_one_before_used(postgres, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    settings = (*FAST, "batch_size=8", "checkpoint_every_steps=2")
    for run in (whole, cut):
        done(command("train_transformer", *settings, f"hydra.run.dir={run}", cwd=tmp_path))
    (cut / "model.pt").unlink()
    flip_a_byte(cut / "checkpoints" / "last.ckpt")
    resumed = (*settings, f"hydra.run.dir={cut}", "ckpt_path=last")
    code, _, err = finished(command("train_transformer", *resumed, cwd=tmp_path))
    assert code == 0
    assert err.strip() == (
        f"warning: {cut}/checkpoints/last.ckpt is damaged or missing; going on from previous.ckpt "
        "beside it, the checkpoint before"
    )
    assert_same_weights(whole, cut)


def test_an_import_does_not_wait_for_torch():
    loaded = "import sys, musicrec.cli.import_interactions; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", loaded], check=False).returncode == 0
