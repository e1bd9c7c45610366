"""How long one scoring takes in onnxruntime and in torch, by catalogue and batch, interleaved.

    python benchmarks/onnx_encoder.py --catalogues 10000 100000 --batches 1 16

Invented bundles of the size that is trained by default (``model=base``: dim 128, two blocks,
repeats, 32 transitions of each item), histories of 50 random items, one thread each. Both give the
scores of the whole catalogue and no top-k. torch is as the service calls it: the flat encoder, and
an output table made beforehand.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from musicrec.interactions.catalogue import Catalogue
from musicrec.models.sasrec import SASRec
from musicrec.registry import bundle as bundles
from musicrec.registry.onnx import export, open_session

LENGTH = 50


def invented(catalogue_size: int) -> bundles.Bundle:
    """A bundle whose weights were never trained, with transitions to remember."""
    torch.manual_seed(1)
    model = SASRec(catalogue_size, max_length=LENGTH)
    before, after = torch.randint(1, catalogue_size + 1, (2, 20 * catalogue_size))
    model.remember(before, after)
    names = [f"track-{index}" for index in range(1, catalogue_size + 1)]
    nothing = [None] * catalogue_size
    return bundles.new_bundle(
        model,
        Catalogue(names, nothing, nothing, np.ones(catalogue_size, dtype=np.int64)),
        architecture={"catalogue_size": catalogue_size, "max_length": LENGTH},
        config={},
        metrics={"protocol": {"seen": "keep"}},
        data_fingerprint="",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--catalogues", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--rounds", type=int, default=200)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    print("tracks   batch   torch ms p50 p99   onnxruntime ms p50 p99   file MB  open s  export s")
    for catalogue_size in chosen.catalogues:
        bundle = invented(catalogue_size)
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            path = export(bundle, Path(folder) / "model.onnx", histories=20).path
            exporting = time.perf_counter() - start
            start = time.perf_counter()
            session = open_session(path)
            opening = time.perf_counter() - start
            for batch in chosen.batches:
                ours, theirs = measured(bundle.model, session, batch, chosen.rounds)
                print(
                    f"{catalogue_size:>7,} {batch:>6} {said(ours):>18} {said(theirs):>24}"
                    f" {path.stat().st_size / 1e6:>9.1f} {opening:>7.2f} {exporting:>9.1f}"
                )


@torch.inference_mode()
def measured(model: SASRec, session, batch: int, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of each scoring, in torch and in onnxruntime, by turns."""
    table = model.output_table()
    ours, theirs = [], []
    for turn in range(rounds + 10):
        items = torch.randint(1, model.catalogue_size + 1, (batch, LENGTH))
        start = time.perf_counter()
        model.scores(model.encode_last(items.flatten(), torch.full((batch,), LENGTH)), table)
        between = time.perf_counter()
        session.run(["scores"], {"items": items.numpy()})
        end = time.perf_counter()
        if turn >= 10:
            ours.append(between - start)
            theirs.append(end - between)
    return ours, theirs


def said(seconds: list[float]) -> str:
    middle, high = np.percentile(seconds, [50, 99]) * 1000
    return f"{middle:.2f} {high:.2f}"


if __name__ == "__main__":
    main()
