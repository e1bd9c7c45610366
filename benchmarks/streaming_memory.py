"""Peak memory and rate of streaming a dataset from Postgres into the snapshot training maps.

    python benchmarks/streaming_memory.py --rows 20000000

Generates the rows inside the server (dataset ``bench_streaming``, kept for the next run unless
``--drop``), then streams them in a fresh process and reads one epoch of batches. Memory is the
process's peak resident set above its size right after importing torch and Lightning; the pages of
the memory-mapped snapshot that happen to be resident are counted too.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sqlalchemy import text

from musicrec.database.engine import Dataset, drop_dataset, open_dataset

NAME = "bench_streaming"
PLAYS_PER_LISTENER = 200
TRACKS = 200_000

FILL = """
INSERT INTO interactions (user_key, occurred_at, track_key, tie, ms_played, skipped, source)
SELECT n / :plays + 1,
       '2020-01-01'::timestamptz + (n % :plays) * interval '1 hour' + n % 977 * interval '1 s',
       1 + (hashint8(n) & 2147483647) % :tracks, 0, 180000, false, 'bench'
FROM generate_series(:first, :last) n
"""


def fill(dataset: Dataset, rows: int) -> None:
    """``rows`` plays of ``rows / 200`` listeners over 200,000 tracks, one plays's row a second."""
    with dataset.engine.begin() as connection:
        if connection.scalar(text("SELECT count(*) FROM interactions")) == rows:
            return
        connection.execute(text("TRUNCATE interactions, users, tracks"))
        connection.execute(text("DROP INDEX interactions_in_order"))
        for table, key, prefix, count in (
            ("users", "user_key, user_id", "u", rows // PLAYS_PER_LISTENER + 1),
            ("tracks", "track_key, track_id", "t", TRACKS),
        ):
            connection.execute(
                text(
                    f"INSERT INTO {table} ({key}) SELECT n, '{prefix}' || n"
                    " FROM generate_series(1, :count) n"
                ),
                {"count": count},
            )
        connection.execute(text("UPDATE dataset_info SET timed = true"))
        for first in range(0, rows, 1_000_000):
            last = min(first + 1_000_000, rows) - 1
            values = {"plays": PLAYS_PER_LISTENER, "tracks": TRACKS, "first": first, "last": last}
            connection.execute(text(FILL), values)
            print(f"  {last + 1:,} rows", end="\r", flush=True)
        connection.execute(
            text(
                "CREATE INDEX interactions_in_order ON interactions (user_key, occurred_at, tie)"
                " INCLUDE (track_key, ms_played, skipped)"
            )
        )
    with dataset.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM (ANALYZE) interactions"))


MEASURED = """
import functools, json, resource, sys, time
from pathlib import Path
import pytorch_lightning, torch
from musicrec.database.engine import open_dataset
from musicrec.interactions.split import leave_one_out
from musicrec.sources import stream
from musicrec.training.batches import BatchDataset, Place, windows

def resident():
    line = [l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("VmRSS")]
    return int(line[0].split()[1]) / 1024

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

before = resident()
started = time.perf_counter()
with open_dataset(sys.argv[1]) as dataset:
    snapshot = stream.snapshot(dataset, Path(sys.argv[2]))
seconds, streamed = time.perf_counter() - started, peak()
split = leave_one_out(snapshot.sequences)
batches = BatchDataset(
    snapshot.sequences, windows(snapshot.sequences, split.train, 50), batch_size=256, seed=1
)
started = time.perf_counter()
tokens = sum(batches[Place(0, step)].step_tokens for step in range(batches.steps_per_epoch))
print(json.dumps({
    "rows": snapshot.facts.num_interactions,
    "seconds": seconds,
    "mb_after_imports": before,
    "mb_above_streaming": streamed - before,
    "mb_above_with_an_epoch": peak() - before,
    "batch_tokens_per_second": tokens / (time.perf_counter() - started),
}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--drop", action="store_true", help="delete the dataset afterwards")
    options = parser.parse_args()
    snapshots = Path(tempfile.mkdtemp(prefix="musicrec-bench-"))
    with open_dataset(NAME, create=True) as dataset:
        started = time.perf_counter()
        fill(dataset, options.rows)
        print(f"{options.rows:,} rows ready after {time.perf_counter() - started:.0f} s")
    try:
        command = [sys.executable, "-c", MEASURED, NAME, str(snapshots)]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    finally:
        shutil.rmtree(snapshots)
    for name, value in json.loads(out).items():
        print(f"{name:28} {value:>14,.1f}")
    if options.drop:
        drop_dataset(NAME)


if __name__ == "__main__":
    main()
