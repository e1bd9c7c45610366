"""Scoring the whole catalogue: ours beside the bare product and top-k, and an index beside both.

    python benchmarks/scoring.py                                  # 10k, 100k and 1M tracks
    python benchmarks/scoring.py --bundle model.pt --stored       # recall on a trained table, too

*bare* is ``torch.mm(hidden, table.T, out=…)`` and ``topk(100)`` and nothing else. *ours* is what
the service does from where the encoder ends: product, biases of repeats and transitions, bans, 100
best with ties by index, scores of 50 proposals. *index* is the same of ``serving/approximate.py``.
One thread; rounds interleaved, medians; the ratio is that of each round. *encoder* is what a batch
costs before all of these. Recall is the share of the exact 100 best that the index's 100 hold, of
listeners whose histories were not used to build anything.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy loads

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import psutil
import torch
from rich.console import Console
from rich.table import Table

import serving_model
from musicrec.models.block import Block
from musicrec.models.sasrec import SASRec
from musicrec.registry import bundle as bundles
from musicrec.serving.approximate import PROBED, ApproximateScoring
from musicrec.serving.candidates import Proposals
from musicrec.serving.scoring import Question, Scoring

BEST, PROPOSED = 100, 50
#: Of the cells, to look into; the third is the service's.
SHARES = (1 / 32, 1 / 16, PROBED, 1 / 4)


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    console = Console(width=140)
    report: dict[str, Any] = {"load_before": os.getloadavg(), "speed": [], "recall": []}
    for size in options.tracks:
        model = serving_model.model(size)
        histories = serving_model.histories(size, 64, 50, seed=4)
        exact, index, built = _made(model)
        for batch in options.batches:
            found = _raced(model, exact, index, histories, batch, options.rounds)
            report["speed"].append({"tracks": size, "batch": batch, **found})
        recall = _recall(exact, index, histories)
        report["recall"].append({"table": "clustered", "tracks": size, **built, **recall})
    for path in options.bundle:
        loaded = bundles.load(Path(path))
        histories = _plays(loaded) if options.stored else _walks(loaded.model)
        exact, index, built = _made(loaded.model)
        name = f"trained on {loaded.config.get('dataset', path)}"
        recall = _recall(exact, index, histories)
        report["recall"].append({"table": name, "tracks": len(loaded.catalogue), **built, **recall})
        larger, histories = _larger(loaded.model, options.larger, histories)
        exact, index, built = _made(larger)
        recall = _recall(exact, index, histories)
        name = f"{name}, copies"
        report["recall"].append({"table": name, "tracks": larger.catalogue_size, **built, **recall})
    report["load_after"] = os.getloadavg()
    _print(console, "speed", report["speed"])
    _print(console, "recall of the index", _by_share(report["recall"]))
    load = ", ".join(f"{report[f'load_{when}'][0]:.1f} {when}" for when in ("before", "after"))
    console.print(f"load of the machine: {load}")
    if options.output:
        Path(options.output).write_text(json.dumps(report, indent=1))


# --- the contestants


def _made(model: SASRec) -> tuple[Scoring, ApproximateScoring, dict[str, float]]:
    exact = Scoring(model)
    before, started = psutil.Process().memory_info().rss, time.perf_counter()
    index = ApproximateScoring(model)
    built = {
        "cells": index._index.nlist,
        "build s": time.perf_counter() - started,
        "MB": (psutil.Process().memory_info().rss - before) / 1e6,
    }
    return exact, index, built


def _questions(histories: Sequence[np.ndarray], tracks: int) -> list[Question]:
    chance = np.random.default_rng(5)
    made = []
    for items in histories:
        proposed = np.unique(chance.integers(1, tracks + 1, PROPOSED))
        proposals = Proposals(proposed, np.full(len(proposed), 8, np.uint8))
        made.append(Question(items, np.array([0]), proposals, BEST))
    return made


@torch.inference_mode()
def _raced(
    model: SASRec,
    exact: Scoring,
    index: ApproximateScoring,
    histories: Sequence[np.ndarray],
    batch: int,
    rounds: int,
) -> dict[str, float]:
    questions = _questions(histories, model.catalogue_size)
    batches = [questions[start : start + batch] for start in range(0, len(questions), batch)]
    table = model.output_table().contiguous()
    out = torch.empty(batch, len(table))
    knowns = {}
    for number, asked in enumerate(batches):
        knowns[number] = exact._known([question.items for question in asked])

    def bare(number: int) -> None:
        torch.mm(knowns[number].hidden, table.T, out=out)
        out.topk(BEST)

    def after_encoder(scoring: Scoring) -> Callable[[int], None]:
        def run(number: int) -> None:
            scoring._known = lambda _: knowns[number]  # type: ignore[method-assign]
            try:
                scoring.answers(batches[number])
            finally:
                del scoring._known

        return run

    contestants: dict[str, Callable[[int], Any]] = {
        "bare": bare,
        "ours": after_encoder(exact),
        "index": after_encoder(index),
        "encoder": lambda number: exact._known([q.items for q in batches[number]]),
    }
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, run in contestants.items():
            started = time.perf_counter()
            for number in range(len(batches)):
                run(number)
            if turn:  # the first is for warming up
                times[name].append(1000 * (time.perf_counter() - started) / len(batches))
    found = {f"{name}_ms": statistics.median(each) for name, each in times.items()}
    ratios = [ours / bare for ours, bare in zip(times["ours"], times["bare"], strict=True)]
    return found | {"ours_to_bare": statistics.median(ratios)}


# --- recall


def _recall(
    exact: Scoring, index: ApproximateScoring, histories: Sequence[np.ndarray]
) -> dict[str, float]:
    """Recall of the best 100 and of the best 10, and time with the encoder's, by share of cells."""
    questions = [
        question._replace(proposals=Proposals(np.empty(0, np.int64), np.empty(0, np.uint8)))
        for question in _questions(histories[:512], exact._model.catalogue_size)
    ]
    truth = [exact.answers([question])[0].best for question in questions]
    found: dict[str, float] = {}
    usual = index.num_probed
    for share in SHARES:
        index.num_probed = max(1, round(index._index.nlist * share))
        started = time.perf_counter()
        mine = [index.answers([question])[0].best for question in questions]
        name = f"1/{round(1 / share)}"
        found[f"ms {name}"] = 1000 * (time.perf_counter() - started) / len(questions)
        pairs = list(zip(truth, mine, strict=True))
        found[f"@100 {name}"] = float(np.mean([np.isin(a, b).mean() for a, b in pairs]))
        found[f"@10 {name}"] = float(np.mean([np.isin(a[:10], b).mean() for a, b in pairs]))
    index.num_probed = usual
    return found


def _plays(loaded: bundles.Bundle) -> list[np.ndarray]:
    """The plays of 512 listeners of the dataset that a bundle was trained on."""
    from musicrec.database.engine import open_dataset

    query = """
    SELECT array_agg(track_id ORDER BY occurred_at, tie) FROM interactions JOIN tracks
    USING (track_key) WHERE user_key IN (SELECT user_key FROM users ORDER BY user_key LIMIT 512)
    GROUP BY user_key
    """
    with (
        open_dataset(str(loaded.config["dataset"])) as opened,
        opened.engine.connect() as connection,
    ):
        rows = connection.exec_driver_sql(query).all()
    found = [np.array(loaded.catalogue.indices(row[0])[0], np.int64) for row in rows]
    return [items for items in found if len(items)]


@torch.inference_mode()
def _walks(model: SASRec) -> list[np.ndarray]:
    """Histories that follow the model's own transitions, where there is no dataset at hand."""
    chance = np.random.default_rng(6)
    successors = model.transitions[0].successors.numpy() if len(model.transitions) else None
    walks = []
    for _ in range(512):
        walk = [int(chance.integers(1, model.catalogue_size + 1))]
        while len(walk) < 30:
            after = np.empty(0) if successors is None else successors[walk[-1]]
            after = after[after > 0]
            strange = chance.random() < 0.2 or not len(after)
            walk.append(
                int(chance.choice(after if not strange else model.catalogue_size) + strange)
            )
        walks.append(np.array(walk))
    return walks


def _larger(
    model: SASRec, size: int, histories: Sequence[np.ndarray]
) -> tuple[SASRec, list[np.ndarray]]:
    """A model of more tracks: copies of the trained vectors, with noise as large as what lies
    between an item and its nearest neighbour. The histories are of the first copies."""
    old = model.item_embedding.weight[1:].detach()
    copies = -(-size // len(old))
    directions = torch.nn.functional.normalize(old[:2000], dim=1)
    near = (directions @ directions.T).fill_diagonal_(-1).amax(1).median()
    length = old.norm(dim=1).median()
    noise = float(length * (2 - 2 * near).sqrt() / old.shape[1] ** 0.5)
    generator = torch.Generator().manual_seed(7)
    vectors = torch.cat(
        [old]
        + [old + noise * torch.randn(old.shape, generator=generator) for _ in range(copies - 1)]
    )
    larger = SASRec(
        len(vectors),
        max_length=model.max_length,
        dim=old.shape[1],
        blocks=len(model.blocks),
        heads=cast(Block, model.blocks[0]).heads,
        repeats=False,
        similarity="cosine" if model.is_cosine else "dot",
        transitions=0,
    ).eval()
    weights = {
        name: value
        for name, value in model.state_dict().items()
        if not name.startswith(("item_embedding", "transitions", "repeats"))
    }
    larger.load_state_dict(weights, strict=False)
    with torch.no_grad():
        larger.item_embedding.weight[1:] = vectors
    return larger, list(histories)


# --- the tables


def _print(console: Console, title: str, rows: list[dict[str, Any]]) -> None:
    """One line a row; of recall, one for each share of the cells."""
    table = Table(title=title, title_justify="left")
    for name in rows[0] if rows else ():
        table.add_column(name, justify="left" if isinstance(rows[0][name], str) else "right")
    for row in rows:
        table.add_row(*(f"{v:,.3f}" if isinstance(v, float) else f"{v}" for v in row.values()))
    console.print(table)


def _by_share(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    flat = []
    for row in rows:
        about = {name: value for name, value in row.items() if "/" not in name}
        for share in (name[3:] for name in row if name.startswith("ms ")):
            figures = {what: row[f"{what} {share}"] for what in ("ms", "@100", "@10")}
            flat.append({**about, "of cells": share, **figures})
    return flat


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tracks", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--bundle", nargs="*", default=[], help="trained ones, for recall")
    parser.add_argument(
        "--stored",
        action="store_true",
        help="ask for listeners of the bundle's dataset; else for walks along its transitions",
    )
    parser.add_argument("--larger", type=int, default=200_000, help="tracks of the noisy copy")
    parser.add_argument("--output", help="a JSON file")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
