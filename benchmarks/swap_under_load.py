"""Latency and failures of ``POST /recommend`` while the model is swapped, good files and bad ones.

    python benchmarks/swap_under_load.py                          # 100k tracks, 2 workers
    python benchmarks/swap_under_load.py --tracks 1000000 --rate 20 --swaps 3

A server without a dataset, asked with histories: nothing but the model is measured. Requests come
as a Poisson process, with latencies from the moment a request should have begun
(``recommend_load.py``), and go on through all phases: ``calm``, ``taking`` (a good file was put
there, and some worker still answers by the old one) and ``refusing`` (a torn file was put there,
and some worker has not refused it yet). Server and load share the cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import uvloop
from rich.console import Console
from rich.table import Table

import serving_model
from musicrec.registry import bundle as bundles
from recommend_load import Load, Seen

HERE = Path(__file__).parent
PHASES = ("calm", "taking", "refusing")
CALM_SECONDS = 3.0


class Server:
    """One ``scripts/serve.py`` over a path, and its log."""

    def __init__(self, path: Path, workers: int, log: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.workers = workers
        self._log = log
        script = str(HERE.parent / "scripts" / "serve.py")
        settings = [f"bundle={path}", "dataset=null", f"port={self.port}", f"workers={workers}"]
        with log.open("wb") as said:
            self.process = subprocess.Popen([sys.executable, script, *settings], stderr=said)

    def lines(self, said: str) -> list[dict[str, Any]]:
        """Those of the log that say so."""
        lines = [json.loads(x) for x in self._log.read_text().splitlines() if x.startswith("{")]
        return [line for line in lines if line["said"] == said]

    async def said(self, what: str, times: int) -> None:
        """Wait until all workers have said it so many times."""
        deadline = time.monotonic() + 600
        while len(self.lines(what)) < times * self.workers:
            assert self.process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            await asyncio.sleep(0.02)

    def rss_mb(self) -> int:
        family = [psutil.Process(self.process.pid)]
        family += family[0].children(recursive=True)
        return round(sum(process.memory_info().rss for process in family) / 1e6)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def files(folder: Path, tracks: int, swaps: int) -> tuple[list[Path], list[Path]]:
    """So many good bundles, and a torn one of each but the first."""
    good, torn = [], []
    for number in range(swaps + 1):
        good.append(folder / f"good-{number}.pt")
        bundles.save(serving_model.bundle(tracks, seed=number), good[-1])
        if number:
            torn.append(folder / f"torn-{number}.pt")
            shutil.copy(good[-1], torn[-1])
            with torn[-1].open("r+b") as file:
                file.truncate(torn[-1].stat().st_size - 100_000)
    return good, torn


def bodies(tracks: int) -> list[bytes]:
    histories = serving_model.histories(tracks, 500, 60, seed=3)
    return [
        json.dumps({"history": [f"track-{item}" for item in items.tolist()], "k": 10}).encode()
        for items in histories
    ]


async def measured(
    server: Server, path: Path, good: list[Path], torn: list[Path], load: Load, rate: float
) -> tuple[dict[str, Seen], list[int]]:
    """What was seen in each phase, and the server's memory before and after each swap."""
    seen = {phase: Seen() for phase in PHASES}
    phase, goes_on = "calm", True

    async def arrive() -> None:
        chance, moment, tasks = random.Random(5), time.perf_counter(), []
        while goes_on:
            await asyncio.sleep(moment - time.perf_counter())
            tasks.append(asyncio.create_task(load.one(seen[phase], moment)))
            moment += chance.expovariate(rate)
        await asyncio.gather(*tasks)

    await server.said("model taken", 1)
    await _warm(load)
    arriving = asyncio.create_task(arrive())
    await asyncio.sleep(CALM_SECONDS)
    rss_mb = [server.rss_mb()]
    for number, (better, worse) in enumerate(zip(good[1:], torn, strict=True), start=1):
        phase = "refusing"
        worse.replace(path)
        await server.said("model refused", number)
        phase = "calm"
        await asyncio.sleep(CALM_SECONDS)
        phase = "taking"
        better.replace(path)
        await server.said("model taken", number + 1)
        phase = "calm"
        await asyncio.sleep(CALM_SECONDS)
        rss_mb.append(server.rss_mb())
    goes_on = False
    await arriving
    return seen, rss_mb


async def _warm(load: Load) -> None:
    """Connections are made and caches filled before anything counts."""
    for _ in range(50):
        await load.one(Seen(), time.perf_counter())


def main() -> None:
    options = _options()
    console = Console()
    os.environ.pop("MUSICREC_API_KEY", None)
    with tempfile.TemporaryDirectory(prefix="swap-", dir=options.folder) as name:
        folder = Path(name)
        with console.status(f"making {options.swaps + 1} models of {options.tracks:,} tracks"):
            good, torn = files(folder, options.tracks, options.swaps)
        path = folder / "model.pt"
        good[0].replace(path)
        server = Server(path, options.workers, folder / "log")
        try:
            load = Load("127.0.0.1", server.port, "/recommend", bodies(options.tracks))
            run = measured(server, path, good, torn, load, options.rate)
            seen, rss_mb = uvloop.run(run)
            with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/readyz") as ready:
                assert ready.status == 200
            _print(console, server, seen, rss_mb, options)
        finally:
            server.stop()


def _print(
    console: Console,
    server: Server,
    seen: dict[str, Seen],
    rss_mb: list[int],
    options: argparse.Namespace,
) -> None:
    title = f"{options.tracks:,} tracks, {options.workers} workers, {options.rate:g} requests/s"
    table = Table(title=title, title_justify="left")
    for column in ("phase", "requests", "failed", "p50 ms", "p99 ms", "worst ms", "models"):
        table.add_column(column, justify="right")
    errors: Counter[str] = Counter()
    for phase, each in seen.items():
        errors += each.errors
        found = each.figures(1)
        table.add_row(
            phase,
            f"{found['requests']:,}",
            str(sum(each.errors.values())),
            *(f"{found[f'p{share}_ms']:.1f}" for share in ("50", "99")),
            f"{max(each.latencies, default=float('nan')):.1f}",
            str(len(each.models)),
        )
    console.print(table)
    taken = [line["seconds"] for line in server.lines("model taken")]
    console.print(
        f"{len(taken)} times taken, in {min(taken):.1f} to {max(taken):.1f} s of opening; "
        f"{len(server.lines('model refused'))} times refused; MB at first and after each swap: "
        f"{', '.join(f'{mb:,}' for mb in rss_mb)}; load of the machine {os.getloadavg()[0]:.1f}"
    )
    for why, times in errors.items():
        console.print(f"failed: {times} x {why}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tracks", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rate", type=float, default=50)
    parser.add_argument("--swaps", type=int, default=5)
    parser.add_argument("--folder", help="where the models are made; the system's by default")
    return parser.parse_args()


if __name__ == "__main__":
    main()
