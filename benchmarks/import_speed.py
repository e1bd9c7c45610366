"""How fast an import is, beside a bare ``\\copy`` of the same rows with their keys already known.

    .venv/bin/python benchmarks/import_speed.py --rows 2000000 --rounds 3

Each round, on the server that ``DATABASE_URL`` names or else on an embedded one of its own, runs

    copy    ``psql \\copy`` of the mapped rows, in the file's order, into an empty table of the same
            columns, checks, keys and index as ``interactions``
    first   ``import_source`` of the file (outside ids, unix seconds) into an empty dataset
    again   the same import once more, of data that has not changed since
    verify  and once more after something has, so that every row is read and compared

one right after the other, so a slow minute of the machine hits all four. An import's time holds
everything from the first byte read to VACUUM; its peak memory is that of its process, less what
the process held after its imports. The file is one of the generator below: as many users and
tracks per row as in a Last.fm-like crawl, in order of users or of time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import sqlalchemy

from musicrec.database.engine import Dataset, drop_dataset, open_dataset
from musicrec.database.programs import binaries
from musicrec.sources.loader import import_source
from musicrec.sources.reading.listens import ListenColumns
from musicrec.sources.table import TableSource

USERS_PER_ROW = 83_000 / 2_000_000
TRACKS_PER_ROW = 241_000 / 2_000_000
COLUMNS = ("user_key", "occurred_at", "track_key", "tie", "ms_played", "source")


def main() -> None:
    options = _options()
    if options.only:
        print(json.dumps(_import(*options.only)))
        return
    with tempfile.TemporaryDirectory(prefix="import-speed-") as folder:
        os.environ.setdefault("MUSICREC_HOME", str(Path(folder, "home")))
        files = _write_files(Path(folder), options)
        print(
            f"{options.rows:,} rows, file in order of {options.order}, "
            f"{files[0].stat().st_size / 1e6:.0f} MB{', with titles' if options.titles else ''}"
        )
        print(
            f"{'round':>5} {'step':>6} {'seconds':>8} {'rows/s':>9} {'of copy':>8} {'peak MB':>8}"
        )
        rounds = [_round(number, *files, options.rows) for number in range(1, options.rounds + 1)]
    for step in ("first", "again", "verify"):
        ratio = statistics.median(taken["copy"] / taken[step] for taken in rounds)
        print(f"{step}: {ratio:.2f} of the rows/s of \\copy (median of {len(rounds)})")
    for step in ("again", "verify"):
        faster = statistics.median(taken["first"] / taken[step] for taken in rounds)
        print(f"{step} is {faster:.2f} times as fast as first")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--order", choices=("user", "time"), default="user")
    parser.add_argument("--titles", action="store_true", help="the file names artists and titles")
    parser.add_argument("--suffix", choices=("csv", "csv.gz"), default="csv")
    parser.add_argument("--only", nargs=2, help=argparse.SUPPRESS)  # DATASET FILE: one import
    return parser.parse_args()


def _write_files(folder: Path, options: argparse.Namespace) -> tuple[Path, Path]:
    """The file to import, and the same rows with keys for ``\\copy``."""
    random = np.random.default_rng(17)
    num_users = int(options.rows * USERS_PER_ROW) + 1
    num_tracks = int(options.rows * TRACKS_PER_ROW) + 1
    # A few users and tracks have most of the plays, as in life.
    user = (num_users * random.random(options.rows) ** 2).astype(np.int64)
    track = (num_tracks * random.random(options.rows) ** 3).astype(np.int64)
    seconds = random.integers(1_400_000_000, 1_700_000_000, options.rows)
    order = np.lexsort((seconds, user)) if options.order == "user" else np.argsort(seconds)
    user, track, seconds = user[order], track[order], seconds[order]
    ms_played = random.integers(5_000, 300_000, options.rows)
    plays = {
        "user_id": _names("user_", user),
        "track_id": _names("spotify:track:4uLU6hMCjMI75M1A", track),
        "ts": seconds,
        "ms_played": ms_played,
    }
    if options.titles:
        plays |= {"artist": _names("The Artist No. ", track // 10), "title": _names("Song ", track)}
    name = "plays-with-titles" if options.titles else "plays"
    raw, mapped = folder / f"{name}.{options.suffix}", folder / "mapped.csv"
    with pa.output_stream(raw, compression="detect") as stream:
        pa.csv.write_csv(pa.table(plays), stream)
    keys = {
        "user_key": _first_seen(user),
        "occurred_at": pa.array(seconds).cast(pa.timestamp("s", "UTC")),
        "track_key": _first_seen(track),
        "tie": np.zeros(options.rows, dtype=np.int16),
        "ms_played": ms_played,
        "source": pa.repeat("table", options.rows),
    }
    # Primary keys would repeat where the generator made a play twice; the import drops those.
    once = np.unique(np.stack([user, seconds, track]), axis=1, return_index=True)[1]
    rows = pa.table(keys).take(pa.array(np.sort(once)))
    pa.csv.write_csv(rows, mapped, pa.csv.WriteOptions(include_header=False))
    return raw, mapped


def _names(prefix: str, number: np.ndarray) -> pa.Array:
    values = pa.array([f"{prefix}{n:07d}" for n in range(int(number.max()) + 1)])
    return values.take(pa.array(number))


def _first_seen(value: np.ndarray) -> np.ndarray:
    """Keys from 1 in order of first appearance."""
    _, first, inverse = np.unique(value, return_index=True, return_inverse=True)
    return (np.argsort(np.argsort(first)) + 1)[inverse]


def _round(number: int, raw: Path, mapped: Path, rows: int) -> dict[str, float]:
    name = f"speed_{uuid.uuid4().hex[:12]}"
    taken, peak = {}, {"copy": 0.0}
    with open_dataset(name, create=True) as dataset:
        _checkpoint(dataset)
        taken["copy"] = _copy(dataset, mapped)
        for step in ("first", "again", "verify"):
            if step == "verify":
                _change(dataset)
            _checkpoint(dataset)
            command = [sys.executable, __file__, "--only", name, str(raw)]
            done = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            taken[step], peak[step] = done["seconds"], done["peak_mb"]
    drop_dataset(name)
    for step, seconds in taken.items():
        print(
            f"{number:>5} {step:>6} {seconds:>8.2f} {rows / seconds:>9,.0f} "
            f"{taken['copy'] / seconds:>8.2f} {peak[step]:>8.0f}"
        )
    return taken


def _change(dataset: Dataset) -> None:
    """Anything at all: the next import then verifies every row instead of trusting the log."""
    with dataset.engine.begin() as connection:
        connection.execute(
            sqlalchemy.text("UPDATE users SET created_at = now() WHERE user_key = 1")
        )


def _checkpoint(dataset: Dataset) -> None:
    """So that no step pays for writing out what an earlier one left in memory."""
    with dataset.engine.connect() as connection:
        connection.execute(sqlalchemy.text("CHECKPOINT"))


def _copy(dataset: Dataset, mapped: Path) -> float:
    with dataset.engine.begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE bare (LIKE interactions INCLUDING ALL)"))
    command = f"\\copy bare ({', '.join(COLUMNS)}) from '{mapped}' (format csv)"
    conninfo = dataset.address.conninfo(options=f"-c search_path={dataset.name} -c timezone=UTC")
    started = time.monotonic()
    subprocess.run([binaries() / "psql", "-qX", "-d", conninfo, "-c", command], check=True)
    seconds = time.monotonic() - started
    with dataset.engine.begin() as connection:
        connection.execute(sqlalchemy.text("DROP TABLE bare"))
    return seconds


def _import(name: str, raw: str) -> dict[str, float]:
    titles = {"artist": "artist", "title": "title"} if "titles" in Path(raw).name else {}
    columns = ListenColumns(
        user="user_id", item="track_id", time="ts", ms_played="ms_played", **titles
    )
    before = _memory("VmRSS")
    with open_dataset(name) as dataset:
        summary = import_source(dataset, TableSource(raw, columns, time="unix_s"))
    return {"seconds": summary.seconds, "peak_mb": _memory("VmHWM") - before}


def _memory(line: str) -> float:
    """Megabytes of this process, by /proc: a child's ``ru_maxrss`` begins with its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{line}:", 1)[1].split()[0]) / 1024


if __name__ == "__main__":
    main()
