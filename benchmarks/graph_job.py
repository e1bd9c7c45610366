"""How fast, and how safely, interest graphs are made: the figures that issue 5 asks for.

    .venv/bin/python benchmarks/graph_job.py                 # all four, some four minutes
    .venv/bin/python benchmarks/graph_job.py pace faults     # some of them

A server of the tests that speaks Anthropic's and OpenAI's protocols runs in a process of its own,
on the same cores, beside an embedded Postgres of its own. Users are invented.

    latency  calls take 1 s; graphs a second with 16 and 64 in flight, as a share of in flight / 1 s
    pace     a cap on requests a minute that only the headers tell; the share of it that is used
             after the first seconds, and the 429s
    faults   1,000 users, 20 % of calls meet one of eleven faults, ``kill -9`` three times
    dry      the dry run's input tokens beside the server's own count, and its cost beside the bill
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import text

from musicrec.database import embedded
from musicrec.database.engine import Dataset, drop_dataset, open_dataset
from musicrec.database.home import home
from musicrec.database.locks import is_held
from musicrec.graph import job
from musicrec.graph.estimate import Offer, estimate
from musicrec.graph.providers import provider_of
from musicrec.graph.settings import Settings
from musicrec.graph.tally import Tally

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))  # for its server and its listeners
NAME = "benchmark"


class Served:
    """The server's process."""

    def __init__(self, url: str) -> None:
        self.url = url

    def seen(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/_seen") as answer:
            return json.load(answer)

    def base_url(self, provider: str) -> str:
        return self.url if provider == "anthropic" else f"{self.url}/v1"


@contextmanager
def served(*flags: str) -> Iterator[Served]:
    command = [sys.executable, str(ROOT / "tests" / "llm_server.py"), *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield Served(process.stdout.readline().removeprefix("listening on ").strip())
    finally:
        process.terminate()
        process.wait()


@contextmanager
def dataset_of(users: int) -> Iterator[Dataset]:
    import listeners

    with open_dataset(NAME, create=True) as dataset:
        listeners.store(dataset, users, plays_each=40)
        yield dataset
    drop_dataset(NAME)


def made(
    dataset: Dataset, server: Served, provider: str, settings: Settings
) -> tuple[Tally, float, float]:
    async def run() -> tuple[Tally, float, float]:
        asked = provider_of(provider, None, server.base_url(provider))
        began, cpu = time.monotonic(), time.process_time()
        tally = await job.run(dataset, asked, None, settings)
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu
        await asked.close()
        return tally, seconds, cpu

    return asyncio.run(run())


def latency() -> None:
    for in_flight, users in ((16, 480), (64, 1280)):
        for provider in ("anthropic", "openai"):
            with served("--latency-seconds", "1") as server, dataset_of(users) as dataset:
                tally, seconds, cpu = made(
                    dataset, server, provider, Settings(max_in_flight=in_flight)
                )
                assert tally.done == users, tally
                times = sorted(call["at"] for call in server.seen()["calls"])
                steady = (len(times) - 4 - in_flight) / (times[-1] - times[4])
                print(
                    f"latency {provider:9} {in_flight:2} in flight: {users} users in "
                    f"{seconds:.1f} s, {users / seconds:.1f} users/s = "
                    f"{users / seconds / in_flight:.1%} of ideal, start and end included "
                    f"({steady:.1f} calls/s = {steady / in_flight:.1%} in between); "
                    f"client CPU {cpu / users * 1000:.1f} ms a user"
                )


def pace() -> None:
    for cap, users in ((600, 500), (1800, 1500)):
        flags = ("--latency-seconds", "1", "--requests-per-minute", str(cap))
        with served(*flags) as server, dataset_of(users) as dataset:
            tally, *_ = made(dataset, server, "openai", Settings(max_in_flight=64))
            assert tally.done == users, tally
            seen = server.seen()
            times = [call["at"] for call in seen["calls"]]
            warm = [at for at in times if at > times[0] + 5]
            used = (len(warm) - 1) / (warm[-1] - warm[0]) * 60
            late = [c for c in seen["calls"] if c["fault"] == "limited" and c["at"] > times[0] + 5]
            print(
                f"pace    cap {cap} a minute: {used:.0f} a minute = {used / cap:.1%} of it after "
                f"the first 5 s; 429s: {seen['faults'].get('limited', 0)}, then: {len(late)}"
            )


def faults() -> None:
    users, in_flight = 1000, 32
    flags = ("--latency-seconds", "0.3", "--fault-share", "0.2", "--retry-after", "0.5")
    with served(*flags) as server, dataset_of(users) as dataset:
        command = [
            *(sys.executable, str(ROOT / "scripts" / "generate_interest_graph.py")),
            *("--all-users", "--provider", "anthropic", f"dataset={NAME}"),
            *(f"llm.base_url={server.url}", f"llm.max_in_flight={in_flight}"),
            "llm.timeout_seconds=2",
        ]
        lost = []
        for reached in (250, 550, 850):
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            while len(server.seen()["calls"]) < reached:
                assert process.poll() is None, "ended before it was killed"
                time.sleep(0.05)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            time.sleep(0.3)  # what was on its way has come to the server
            lost.append(scalar(dataset, "SELECT count(*) FROM graph_calls WHERE state = 'asked'"))
        ended = subprocess.run(command, check=False, capture_output=True, text=True)
        print(ended.stdout, ended.stderr)
        seen = server.seen()
        states = rows(dataset, "SELECT state, count(*) FROM graph_tasks GROUP BY 1")
        reasons = rows(
            dataset,
            "SELECT left(reason, 60), count(*) FROM graph_tasks"
            " WHERE state <> 'done' GROUP BY 1 ORDER BY 2 DESC",
        )
        graphs = rows(dataset, "SELECT count(*), count(DISTINCT user_key) FROM user_interest_graph")
        # A question may rightly be asked again after a failure; a good answer only once.
        good = Counter(call["prompt"] for call in seen["calls"] if call["fault"] is None)
        again = sum(times - 1 for times in good.values())
        print(
            f"faults  exit {ended.returncode}; tasks {dict(states)}; graphs, users {graphs[0]}; "
            f"in flight at the kills {lost}; good answers asked for again {again}"
        )
        print(f"faults  met: {seen['faults']}; at once {seen['max_in_flight']}; reasons {reasons}")
        before = len(seen["calls"])
        second = subprocess.run(command, check=False, capture_output=True)
        calls = len(server.seen()["calls"]) - before
        print(f"faults  second run: {calls} calls, exit {second.returncode}")
        assert graphs[0][0] == graphs[0][1]
        assert again <= sum(lost)
        assert sum(count for _, count in states) == users


def dry() -> None:
    users = 100
    with served() as server, dataset_of(users) as dataset:
        for provider in ("anthropic", "openai"):
            asked = provider_of(provider)
            told = estimate(dataset, Offer(asked.name, asked.model, asked.price), None, Settings())
            tally, *_ = made(dataset, server, provider, Settings())
            counted = scalar(
                dataset, f"SELECT sum(input_tokens) FROM graph_calls WHERE provider = '{provider}'"
            )
            assert told.cost is not None
            low, high = (nano / 1e9 for nano in told.cost)
            print(
                f"dry     {provider}: {told.input_tokens} input tokens told, {counted} counted "
                f"({told.input_tokens / counted - 1:+.1%}); ${low:.4f} to ${high:.4f} told, "
                f"${tally.spent / 1e9:.4f} billed"
            )


def rows(dataset: Dataset, query: str) -> list[Any]:
    with dataset.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def scalar(dataset: Dataset, query: str) -> Any:
    return rows(dataset, query)[0][0]


WHAT: dict[str, Callable[[], None]] = {
    "latency": latency,
    "pace": pace,
    "faults": faults,
    "dry": dry,
}


def main() -> None:
    from llm_server import KEY

    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("what", nargs="*", default=[*WHAT], help=", ".join(WHAT))
    chosen = parser.parse_args().what
    with tempfile.TemporaryDirectory(prefix="graph-job-") as folder:
        os.environ.pop("DATABASE_URL", None)
        os.environ |= {"MUSICREC_HOME": str(Path(folder, "home"))}
        os.environ |= {"ANTHROPIC_API_KEY": KEY, "OPENAI_API_KEY": KEY}
        for name in chosen:
            WHAT[name]()
        embedded.leave_server()
        while is_held(home() / "postgres" / "keeper.lock"):
            time.sleep(0.05)


if __name__ == "__main__":
    main()
