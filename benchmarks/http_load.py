"""A closed-loop HTTP load: so many connections, each with one request under way at a time.

Written on asyncio's protocols, since a client library would take more of the two cores than the
server that it measures. ``python benchmarks/http_load.py --help``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from dataclasses import dataclass, field

import uvloop


@dataclass
class Load:
    """What came of it; latencies in seconds, from the request's write to its answer's last byte."""

    bodies: list[bytes]
    deadline: float = 0.0
    counts_from: float = 0.0
    latencies: list[float] = field(default_factory=list)
    refused: int = 0


class Caller(asyncio.Protocol):
    """One connection."""

    def __init__(self, load: Load, head: str) -> None:
        self.load = load
        self.head = head
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.answer = bytearray()
        self.size = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        body = random.choice(self.load.bodies)
        self.answer.clear()
        self.size = -1
        self.asked = time.perf_counter()
        self.transport.write(f"{self.head}{len(body)}\r\n\r\n".encode() + body)

    def data_received(self, data: bytes) -> None:
        self.answer += data
        if self.size < 0 and (end := self.answer.find(b"\r\n\r\n")) >= 0:
            header = bytes(self.answer[:end]).lower()
            length = header.split(b"content-length:")[1].split(b"\r\n")[0]
            self.size = end + 4 + int(length)
        if len(self.answer) != self.size:
            return
        now = time.perf_counter()
        if now >= self.load.counts_from:
            self.load.latencies.append(now - self.asked)
            # Every answer must be one, and must hold features.
            good = self.answer.startswith(b"HTTP/1.1 200") and b'"reason":null' in self.answer
            self.load.refused += not good
        if now < self.load.deadline:
            self.ask()
        else:
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


def feature_bodies(users: int, tracks: int, candidates: int, number: int) -> list[bytes]:
    """Requests for random listeners and tracks of the benchmark's world."""
    chance = random.Random(17)
    return [
        json.dumps(
            {
                "user_id": f"user-{chance.randrange(users)}",
                "track_ids": [f"track-{t}" for t in chance.sample(range(tracks), candidates)],
                "context": {"hour": chance.randrange(24), "weekday": 3, "device": "android"},
            }
        ).encode()
        for _ in range(number)
    ]


async def run(
    host: str, port: int, path: str, bodies: list[bytes], connections: int, seconds: float
) -> dict[str, float]:
    """Load for a second that does not count, then for ``seconds``; rates and latencies."""
    now = time.perf_counter()
    load = Load(bodies, deadline=now + 1 + seconds, counts_from=now + 1)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        "Content-Length: "
    )
    loop = asyncio.get_running_loop()
    callers = [
        (await loop.create_connection(lambda: Caller(load, head), host, port))[1]
        for _ in range(connections)
    ]
    await asyncio.gather(*(caller.done for caller in callers))
    latencies = sorted(load.latencies)

    def at(share: float) -> float:
        return round(1000 * latencies[min(int(share * len(latencies)), len(latencies) - 1)], 2)

    return {
        "requests_per_second": round(len(latencies) / seconds, 1),
        "requests": len(latencies),
        "errors": load.refused,
        "p50_ms": at(0.5),
        "p99_ms": at(0.99),
        "p999_ms": at(0.999),
        "connections": connections,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--path", default="/features")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--tracks", type=int, default=5_000)
    parser.add_argument("--candidates", type=int, default=20)
    a = parser.parse_args()
    bodies = feature_bodies(a.users, a.tracks, a.candidates, 5_000)
    print(json.dumps(uvloop.run(run(a.host, a.port, a.path, bodies, a.connections, a.seconds))))


if __name__ == "__main__":
    main()
