"""Load on ``POST /recommend``: open loop (requests come when they come) and closed loop.

    python benchmarks/recommend_load.py --port 8000 --rate 50 --seconds 20
    python benchmarks/recommend_load.py --port 8000 --connections 8 --seconds 10

In the open loop the moments of a Poisson process are drawn beforehand, and a latency counts from
its moment, whatever kept the request from being written then: a busy server, no idle connection (a
new one is made), or this process. Connections take turns, as those of many clients do: the server's
workers share them, and so the requests. In the closed loop so many connections have one request
under way each, and latencies count from the write. Written on asyncio's protocols, since a client
library would take more of the cores than the server that it measures. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import orjson
import uvloop

#: Answers to leave out before figures count: connections are made and caches filled.
WARM_UP_SECONDS = 2.0

#: Made before an open loop begins.
CONNECTIONS = 32


@dataclass
class Seen:
    """What came of the load; latencies in milliseconds."""

    latencies: list[float] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=dict)
    rungs: Counter[str] = field(default_factory=Counter)
    degraded: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)

    def note(self, status: int, body: bytes, latency: float) -> None:
        if status != 200:
            self.errors[f"{status} {body[:120].decode(errors='replace')}"] += 1
            return
        answer = orjson.loads(body)
        if not answer["tracks"]:
            self.errors["200 without a track"] += 1
            return
        self.latencies.append(1000 * latency)
        self.rungs[answer["rung"]] += 1
        self.models[answer["model_version"]] += 1
        for part in answer["degraded"]:
            self.degraded[f"{part['part']}: {part['why']}"] += 1
        for stage, spent in answer["stages"].items():
            self.stages.setdefault(stage, []).append(spent)

    def figures(self, seconds: float) -> dict[str, Any]:
        return {
            "requests": len(self.latencies),
            "requests_per_second": round(len(self.latencies) / seconds, 1),
            "errors": dict(self.errors),
            **{f"p{name}_ms": _at(self.latencies, share) for name, share in SHARES.items()},
            "stages_ms": {
                stage: {"mean": round(sum(each) / len(each), 3), "p99": _at(each, 0.99)}
                for stage, each in self.stages.items()
            },
            "rungs": dict(self.rungs),
            "degraded": dict(self.degraded),
            "models": dict(self.models),
        }


SHARES = {"50": 0.5, "99": 0.99, "999": 0.999}


def _at(values: Sequence[float], share: float) -> float:
    if not values:
        return float("nan")
    ordered = sorted(values)
    return round(ordered[min(int(share * len(ordered)), len(ordered) - 1)], 2)


class Caller(asyncio.Protocol):
    """One connection, with at most one request under way."""

    def __init__(self) -> None:
        self._answer = bytearray()
        self._size = -1
        self._waiting: asyncio.Future[tuple[int, bytes]] | None = None
        self.is_lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are none of asyncio's

    def ask(self, request: bytes) -> asyncio.Future[tuple[int, bytes]]:
        """Status and body of the answer."""
        self._answer.clear()
        self._size = -1
        self._waiting = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._waiting

    def data_received(self, data: bytes) -> None:
        self._answer += data
        if self._size < 0 and (end := self._answer.find(b"\r\n\r\n")) >= 0:
            header = bytes(self._answer[:end]).lower()
            length = header.split(b"content-length:")[1].split(b"\r\n")[0]
            self._head = end + 4
            self._size = self._head + int(length)
        if len(self._answer) == self._size and self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            waiting.set_result((int(self._answer[9:12]), bytes(self._answer[self._head :])))

    def connection_lost(self, error: Exception | None) -> None:
        self.is_lost = True
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error or ConnectionError("the server closed"))


class Load:
    """So many different requests to one server."""

    def __init__(self, host: str, port: int, path: str, bodies: Sequence[bytes]) -> None:
        self._place = host, port
        self._requests = [
            f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
            for body in bodies
        ]
        self._idle: deque[Caller] = deque()
        self._chance = random.Random(8)

    async def open_loop(self, rate: float, seconds: float) -> dict[str, Any]:
        """``rate`` requests a second, of a Poisson process."""
        self._idle.extend([await self._caller() for _ in range(CONNECTIONS)])
        seen, started = Seen(), time.perf_counter() + 0.1
        counts_from = started + WARM_UP_SECONDS
        moment, tasks = started, []
        while moment < counts_from + seconds:
            await asyncio.sleep(moment - time.perf_counter())
            counted = seen if moment >= counts_from else Seen()
            tasks.append(asyncio.create_task(self.one(counted, moment)))
            moment += self._chance.expovariate(rate)
        await asyncio.gather(*tasks)
        return {"rate": rate, "connections": len(self._idle), **seen.figures(seconds)}

    async def closed_loop(self, connections: int, seconds: float) -> dict[str, Any]:
        """As many requests as come back."""
        seen = Seen()
        counts_from = time.perf_counter() + WARM_UP_SECONDS

        async def keep_asking() -> None:
            while (now := time.perf_counter()) < counts_from + seconds:
                await self.one(seen if now >= counts_from else Seen(), now)

        await asyncio.gather(*(keep_asking() for _ in range(connections)))
        return {"connections": connections, **seen.figures(seconds)}

    async def one(self, seen: Seen, since: float) -> None:
        """One request, of any body; its latency counts ``since``, of ``time.perf_counter``."""
        caller = await self._caller()
        try:
            status, body = await caller.ask(self._chance.choice(self._requests))
        except OSError as error:
            seen.errors[f"{type(error).__name__}: {error}"] += 1
            return
        seen.note(status, body, time.perf_counter() - since)
        self._idle.append(caller)

    async def _caller(self) -> Caller:
        while self._idle:
            caller = self._idle.popleft()
            if not caller.is_lost:
                return caller
        loop = asyncio.get_running_loop()
        _, caller = await loop.create_connection(Caller, *self._place)
        return caller


def recommend_bodies(users: int, number: int, k: int = 10) -> list[bytes]:
    """Requests for random listeners, half of them with a moment and a device."""
    chance = random.Random(17)
    bodies = []
    for _ in range(number):
        body: dict[str, Any] = {"user_id": f"user-{chance.randrange(users)}", "k": k}
        if chance.random() < 0.5:
            body["context"] = {"hour": chance.randrange(24), "weekday": 3, "device": "android"}
        bodies.append(json.dumps(body).encode())
    return bodies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--rate", type=float, help="requests a second: the open loop")
    parser.add_argument("--connections", type=int, default=8, help="of the closed loop")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--k", type=int, default=10)
    a = parser.parse_args()

    async def run() -> dict[str, Any]:
        load = Load(a.host, a.port, "/recommend", recommend_bodies(a.users, 5000, a.k))
        if a.rate is not None:
            return await load.open_loop(a.rate, a.seconds)
        return await load.closed_loop(a.connections, a.seconds)

    print(json.dumps(uvloop.run(run())))


if __name__ == "__main__":
    main()
