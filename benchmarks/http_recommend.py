"""Latency and throughput of ``POST /recommend`` by catalogue size, everything on this machine.

    python benchmarks/http_recommend.py                            # 10k, 100k and 1M tracks
    python benchmarks/http_recommend.py --tracks 100000 --workers 1 2 --seconds 60
    python benchmarks/http_recommend.py --home /tmp/world          # kept, and used again

A server as ``scripts/serve.py`` starts it, with embedded Postgres and Redis, a SASRec of dim 64
with repeats and transitions, a ranker of ``--trees`` trees, and 1,000 listeners with 500 plays,
features and a graph each (``serving_world.py``). First ``--rate`` requests a second come as a
Poisson process, with latencies from the moment a request should have begun; then 8 connections ask
as fast as answers come. Any answer that is not of the highest rung is counted. Stages are the
server's own, from its answers; ``http`` is what is left of the latency. Servers, databases and the
load share the cores.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

import serving_world
from musicrec.database import embedded, embedded_redis
from musicrec.database.engine import open_dataset
from musicrec.database.redis_address import redis_address

HERE = Path(__file__).parent
READY_SECONDS = 600


def main() -> None:
    options = _options()
    console = Console(width=140)
    report: list[dict[str, Any]] = []
    with _home(options.home) as home:
        os.environ["MUSICREC_HOME"] = str(home)
        redis_address()  # started here, so that what is written outlives the commands
        for tracks in options.tracks:
            name = f"recommend_{tracks}"
            bundle = home / f"{name}-{options.trees}.pt"
            with open_dataset(name, create=True) as dataset:
                with console.status(f"making a world of {tracks:,} tracks"):
                    if not serving_world.counted_tracks(dataset):
                        serving_world.fill(dataset, tracks, options.users, options.plays)
                    serving_world.add_features_and_graphs(dataset)
                    if not bundle.exists():
                        serving_world.save_bundle(bundle, tracks, options.trees)
                    world = serving_world.counted(dataset)
                for workers in options.workers:
                    with _server(name, bundle, workers, options.settings) as server:
                        found = _measured(server, options)
                    report.append({"tracks": tracks, "workers": workers, "world": world, **found})
                    if options.output:
                        Path(options.output).write_text(json.dumps(report, indent=1))
        embedded.leave_server()
        embedded_redis.leave_server()
    _print(console, report)


class Server:
    """A running server."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, seconds: float) -> None:
        self.process = process
        self.port = port
        self.seconds_to_ready = seconds

    def family(self) -> list[psutil.Process]:
        """Its processes without the databases that it did not start."""
        parent = psutil.Process(self.process.pid)
        return [parent, *(c for c in parent.children(recursive=True) if "python" in c.name())]

    def cpu_seconds(self) -> float:
        times = [process.cpu_times() for process in self.family()]
        return sum(each.user + each.system for each in times)

    def rss_mb(self) -> list[float]:
        return [round(process.memory_info().rss / 1e6) for process in self.family()]


@contextmanager
def _server(name: str, bundle: Path, workers: int, settings: list[str]) -> Iterator[Server]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = str(HERE.parent / "scripts" / "serve.py")
    arguments = [f"bundle={bundle}", f"dataset={name}", f"port={port}", f"workers={workers}"]
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, script, *arguments, *settings], stderr=subprocess.DEVNULL
    )
    try:
        # Each worker is to be ready: one that is not may be the next to be asked.
        ready = 0
        while ready < 20 * workers:
            assert process.poll() is None, "the server ended"
            assert time.monotonic() - started < READY_SECONDS, "the server did not become ready"
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=30)
                ready += 1
            except (OSError, urllib.error.HTTPError):
                ready = 0
                time.sleep(0.2)
        yield Server(process, port, time.monotonic() - started)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def _measured(server: Server, options: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {
        "seconds_to_ready": round(server.seconds_to_ready, 1),
        "rss_mb": server.rss_mb(),
        "load_before": os.getloadavg()[0],
    }
    for kind, flags in (
        ("open", [f"--rate={options.rate}", f"--seconds={options.seconds}"]),
        ("closed", [f"--connections={options.connections}", f"--seconds={options.seconds / 2}"]),
    ):
        before = server.cpu_seconds()
        command = [sys.executable, str(HERE / "recommend_load.py"), f"--port={server.port}"]
        said = subprocess.check_output([*command, *flags, f"--users={options.users}"])
        found[kind] = json.loads(said)
        spent = server.cpu_seconds() - before
        # Those of the first seconds are asked, too, and do not count.
        share = 1 + 2 / (options.seconds if kind == "open" else options.seconds / 2)
        found[kind]["cpu_ms"] = round(1000 * spent / (share * found[kind]["requests"] or 1), 2)
    found["load_after"] = os.getloadavg()[0]
    found["rss_mb_after"] = server.rss_mb()
    return found


def _print(console: Console, report: list[dict[str, Any]]) -> None:
    table = Table(title="POST /recommend", title_justify="left")
    names = ["tracks", "workers", "load", "requests/s", "p50", "p99", "p99.9", "CPU ms"]
    for name in [*names, "errors", "not full", "MB", "of machine"]:
        table.add_column(name, justify="right")
    for row in report:
        for kind in ("open", "closed"):
            said = row[kind]
            table.add_row(
                f"{row['tracks']:,}",
                str(row["workers"]),
                f"{said['rate']:g}/s" if kind == "open" else f"{said['connections']} conn.",
                f"{said['requests_per_second']:,.1f}",
                *(f"{said[f'p{share}_ms']:.1f}" for share in ("50", "99", "999")),
                f"{said['cpu_ms']:.1f}",
                str(sum(said["errors"].values())),
                str(sum(said["rungs"].values()) - said["rungs"].get("full", 0)),
                f"{sum(row['rss_mb_after']):,.0f}",
                f"{row['load_before']:.1f}",
            )
    console.print(table)
    stages = Table(title="by stage, ms: mean (p99)", title_justify="left")
    for name in ("tracks", "workers", "load", *report[0]["open"]["stages_ms"]):
        stages.add_column(name, justify="right")
    for row in report:
        for kind in ("open", "closed"):
            spent = row[kind]["stages_ms"]
            cells = [f"{each['mean']:.2f} ({each['p99']:.1f})" for each in spent.values()]
            stages.add_row(f"{row['tracks']:,}", str(row["workers"]), kind, *cells)
    console.print(stages)
    for row in report:
        for kind in ("open", "closed"):
            for what in ("errors", "degraded"):
                for why, times in row[kind][what].items():
                    console.print(f"{row['tracks']:,} {kind} {what}: {times} x {why}")


@contextmanager
def _home(named: str | None) -> Iterator[Path]:
    """The folder of servers of its own, whatever the environment names."""
    for name in [name for name in os.environ if name.startswith(("DATABASE_URL", "FEAST_"))]:
        del os.environ[name]
    if named is not None:
        Path(named).mkdir(parents=True, exist_ok=True)
        yield Path(named)
        return
    with tempfile.TemporaryDirectory(prefix="http-recommend-") as folder:
        yield Path(folder)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tracks", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--workers", type=int, nargs="+", default=[2])
    parser.add_argument("--rate", type=float, default=50)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=30, help="of the open loop; half after")
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--plays", type=int, default=500, help="of each listener")
    parser.add_argument("--trees", type=int, default=200, help="of the ranker; 0: none")
    parser.add_argument("--home", help="a folder to keep the world in")
    parser.add_argument("--settings", nargs="*", default=[], help="more for scripts/serve.py")
    parser.add_argument("--output", help="a JSON file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
