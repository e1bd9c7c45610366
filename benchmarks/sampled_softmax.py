"""What a training step of ``loss=sampled`` costs as the catalogue grows.

    python benchmarks/sampled_softmax.py --catalogues 50000 200000 1000000

Same model, same number of windows, same negatives; only the catalogue differs. One process holds a
model for each catalogue and takes turns, some steps each, on one thread, timed in CPU seconds: the
ratios of the medians are what to quote. Played items are drawn uniformly, the worst case: hardly a
row of the item embedding is met twice, and none is in a cache. Memory is the peak of a process of
its own for each catalogue; what must grow is the item embedding and AdamW's two moments of it, 12
bytes a number, and the counted transitions, 8 bytes a successor. ``--dense`` trains with a dense
gradient and AdamW instead, to show what is avoided.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch.optim import AdamW

from musicrec.interactions.sequence import Sequences, play_counts, transitions
from musicrec.models.losses import SampledSoftmax
from musicrec.models.sasrec import SASRec
from musicrec.training.batches import BatchDataset, Place, windows
from musicrec.training.optimizer import LazyRowsAdamW

NUM_LISTENERS, WARM_UP, SUCCESSORS = 3_000, 3, 32


def stepper(catalogue_size: int, options: argparse.Namespace) -> Callable[[], None]:
    """A function that trains one step, with its model, data and optimizer."""
    length = options.length + 1
    offsets = np.arange(NUM_LISTENERS + 1) * length
    plays = np.random.default_rng(0).integers(1, catalogue_size + 1, offsets[-1], dtype=np.int32)
    sequences = Sequences(plays, offsets, np.arange(len(plays)), catalogue_size)
    chosen = windows(sequences, sequences.lengths, options.length)
    batches = BatchDataset(sequences, chosen, batch_size=options.batch, seed=0)
    loss = SampledSoftmax().propose(torch.from_numpy(play_counts(sequences, sequences.lengths)))
    model = SASRec(catalogue_size, options.length, dim=options.dim, heads=2, transitions=SUCCESSORS)
    for lag in range(len(model.transitions)):
        pairs = transitions(sequences, sequences.lengths, lag)
        model.remember(*map(torch.from_numpy, pairs), lag)
    table = model.item_embedding
    table.sparse = not options.dense
    groups = [{"params": list(model.parameters()), "weight_decay": 0.0}]
    optimizer = AdamW(groups, fused=True) if options.dense else LazyRowsAdamW(groups, table.weight)
    done = 0

    def step() -> None:
        nonlocal done
        batch = batches[Place(*divmod(done, batches.steps_per_epoch))]
        hidden, biases = model.encode(batch.items, batch.lengths, batch.targets)
        total = loss(hidden, batch.targets, table.weight, biases, is_cosine=model.is_cosine)
        optimizer.zero_grad()
        (total / len(hidden)).backward()
        optimizer.step()
        done += 1

    for _ in range(WARM_UP):
        step()
    return step


def milliseconds(options: argparse.Namespace) -> dict[int, float]:
    """Median CPU time of a step for each catalogue, turn by turn."""
    steppers = {size: stepper(size, options) for size in options.catalogues}
    times: dict[int, list[float]] = {size: [] for size in options.catalogues}
    for _ in range(options.rounds):
        for size, step in steppers.items():
            for _ in range(options.steps):
                began = time.process_time()
                step()
                times[size].append(1e3 * (time.process_time() - began))
    return {size: statistics.median(taken) for size, taken in times.items()}


def peak_mb(catalogue_size: int, options: argparse.Namespace) -> float:
    """Peak resident memory of building one model and training a few steps."""
    torch.set_num_threads(1)
    step = stepper(catalogue_size, options)
    for _ in range(options.steps):
        step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--catalogues", type=int, nargs="+", default=[50_000, 200_000, 1_000_000])
    parser.add_argument("--batch", type=int, default=128, help="windows a step")
    parser.add_argument("--length", type=int, default=50)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=3, help="of each catalogue in each round")
    parser.add_argument("--dense", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        peaks = [pool.apply(peak_mb, (size, options)) for size in options.catalogues]
    medians = milliseconds(options)
    least = medians[options.catalogues[0]]
    for size, peak in zip(options.catalogues, peaks, strict=True):
        tables = (12 * options.dim + 8 * SUCCESSORS) * size / 1e6
        print(
            f"{size:>9,} items  {medians[size]:7.1f} CPU ms/step  {medians[size] / least:5.2f}x  "
            f"peak {peak:6,.0f} MB, {tables:5,.0f} of them tables as long as that"
        )


if __name__ == "__main__":
    main()
