"""Requests a second and latencies of ``POST /features``, everything on this machine.

    python benchmarks/http_features.py                       # 1 and 2 workers, 20 s each
    python benchmarks/http_features.py --workers 1 --connections 8 32

A server as ``scripts/serve.py`` starts it, over the embedded Redis, which holds 10,000 listeners,
5,000 tracks and a row for half of the pairs that are asked for; ``http_load.py`` asks for random
listeners, 20 tracks and all six views, and counts any answer without features as an error. No
answer is cached anywhere. Postgres holds an empty dataset, dropped in the end. CPU time a request
is that of the server's processes, of Redis and of the load, in microseconds.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from http_load import feature_bodies
from musicrec.database import engine
from musicrec.database.redis_address import RedisAddress, redis_address
from musicrec.features import layout, repository
from musicrec.features.connection import Connection
from musicrec.features.resp import encoded
from musicrec.features.views import ALWAYS, BY_NAME, View

HERE = Path(__file__).parent
DATASET = "benchmark_http_features"
USERS, TRACKS, CANDIDATES, BODIES = 10_000, 5_000, 20, 5_000
CHUNK = 1000


def fill(redis: RedisAddress, now: datetime) -> int:
    """Rows of last midnight for every listener and track, and for half of the pairs asked for."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    chance = random.Random(1)
    users = [{"user_id": f"user-{number}"} for number in range(USERS)]
    tracks = [{"track_id": f"track-{number}"} for number in range(TRACKS)]
    asked = (json.loads(body) for body in feature_bodies(USERS, TRACKS, CANDIDATES, BODIES))
    pairs = [
        {"user_id": body["user_id"], "track_id": track}
        for body in asked
        for track in body["track_ids"]
        if chance.random() < 0.5
    ]
    rows = {
        "user_listening_stats": users,
        "user_audio_preferences": users,
        "track_audio_features": tracks,
        "track_popularity": tracks,
        "user_track_interactions": pairs,
    }
    with Connection(redis) as connection:
        for name, entities in rows.items():
            view = BY_NAME[name]
            stamp = layout.timestamp(midnight if view.window else ALWAYS)
            for start in range(0, len(entities), CHUNK):
                chunk = entities[start : start + CHUNK]
                connection.ask(b"".join(row(view, ids, stamp, chance) for ids in chunk), len(chunk))
    return sum(map(len, rows.values()))


def row(view: View, ids: dict[str, str], stamp: bytes, chance: random.Random) -> bytes:
    """One HSET; every twentieth value is null."""
    prefix = layout.key_prefix(view.join_keys)
    key = layout.key(prefix, tuple(ids[name] for name in sorted(ids)), DATASET.encode())
    words = [layout.timestamp_field(view.name), stamp]
    for field in layout.fields(view):
        words += [field, layout.value(None if chance.random() < 0.05 else chance.random())]
    return encoded(b"HSET", key, *words)


def serve(workers: int) -> tuple[subprocess.Popen[bytes], int]:
    """A server that answers, and its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = HERE.parent / "scripts" / "serve.py"
    settings = (f"dataset={DATASET}", f"port={port}", f"workers={workers}", "timeout_seconds=1")
    process = subprocess.Popen([sys.executable, str(script), *settings])
    while True:
        assert process.poll() is None, "the server ended"
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=5)
            return process, port
        except OSError:
            time.sleep(0.05)


def cpu_seconds(server: subprocess.Popen[bytes], redis: RedisAddress) -> tuple[float, float]:
    """Used so far by the server's processes and by Redis."""
    family = psutil.Process(server.pid)
    times = [each.cpu_times() for each in (family, *family.children(recursive=True))]
    with Connection(redis) as connection:
        info = connection.ask(encoded(b"INFO", b"cpu"), 1)[0].decode().splitlines()
    said = dict(line.split(":") for line in info if ":" in line)
    used = float(said["used_cpu_sys"]) + float(said["used_cpu_user"])
    return sum(each.user + each.system for each in times), used


def load(port: int, connections: int, seconds: float) -> dict[str, float]:
    """What ``http_load.py`` says, and its CPU time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, str(HERE / "http_load.py"), f"--port={port}"]
    command += [f"--connections={connections}", f"--seconds={seconds}"]
    said = json.loads(subprocess.check_output(command))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return said | {"cpu_seconds": used}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--connections", type=int, nargs="+", default=[16])
    parser.add_argument("--seconds", type=float, default=20)
    arguments = parser.parse_args()

    console = Console()
    redis = redis_address()
    with engine.open_dataset(DATASET, create=True) as dataset:
        repository.apply(repository.open_store(dataset, redis))
    with console.status("filling Redis"):
        rows = fill(redis, datetime.now(UTC) - timedelta(minutes=1))
    title = (
        f"POST /features: {rows:,} rows in Redis, {USERS:,} listeners, {CANDIDATES} of {TRACKS:,} "
        f"tracks, six views; {os.cpu_count()} cores for server, Redis and load"
    )
    table = Table(title=title, title_justify="left")
    for name in (
        "workers",
        "connections",
        "requests/s",
        "errors",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "CPU µs",
    ):
        table.add_column(name, justify="right")
    try:
        for workers in arguments.workers:
            process, port = serve(workers)
            for connections in arguments.connections:
                before = cpu_seconds(process, redis)
                said = load(port, connections, arguments.seconds)
                after = cpu_seconds(process, redis)
                # The load's first second is asked and not counted, its start not the load's work.
                asked = said["requests"] * (1 + 1 / arguments.seconds)
                used = (after[0] - before[0], after[1] - before[1], said["cpu_seconds"])
                table.add_row(
                    str(workers),
                    str(connections),
                    f"{said['requests_per_second']:,.0f}",
                    f"{said['errors']:,}",
                    *(f"{said[f'p{share}_ms']:.1f}" for share in (50, 99, 999)),
                    " / ".join(f"{1e6 * seconds / asked:.0f}" for seconds in used),
                )
            process.send_signal(signal.SIGTERM)
            process.wait()
    finally:
        engine.drop_dataset(DATASET)
    console.print(table)


if __name__ == "__main__":
    main()
