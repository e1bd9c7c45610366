"""A running service to be drilled: what it answers with, callers that never cease, its parts' ends.

The bundles are made here and not trained: what a drill asks is whether there is an answer, on which
rung it stands and which model gave it, not how good it is.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import torch

from commands import ROOT, SECONDS
from musicrec.database.address import Address
from musicrec.interactions.catalogue import Catalogue
from musicrec.models.sasrec import SASRec
from musicrec.registry import bundle as bundles
from musicrec.registry.bundle import Bundle, TrainedRanker
from musicrec.serving.ranking import COLUMNS

#: How long a request may take at all before it counts as failed.
PATIENCE_SECONDS = 10.0


def bundle_of(track_ids: Sequence[str], *, seed: int = 0, ranked: bool = False) -> Bundle:
    """A small model of drawn weights; with ``ranked``, a ranker of drawn taste that is used."""
    torch.manual_seed(seed)
    architecture = {
        "catalogue_size": len(track_ids),
        "max_length": 20,
        "dim": 16,
        "blocks": 1,
        "heads": 2,
        "transitions": 4,
    }
    ids = list(track_ids)
    plays = np.arange(len(ids), 0, -1)
    bundle = bundles.new_bundle(
        SASRec(**architecture),
        Catalogue(ids, [f"Title of {i}" for i in ids], [f"Artist of {i}" for i in ids], plays),
        architecture=architecture,
        config={},
        metrics={"protocol": {"seen": "keep"}},
        data_fingerprint="drawn",
    )
    if not ranked:
        return bundle
    return bundles.Bundle(**vars(bundle) | {"ranker": _ranker(seed, len(ids))})


def _ranker(seed: int, num_tracks: int) -> TrainedRanker:
    import lightgbm

    draw = np.random.default_rng(seed)
    place = draw.integers(1, 101, 1000)  # by SASRec; anything else says nothing
    features = np.full((1000, len(COLUMNS)), np.nan)
    features[:, COLUMNS.index("sasrec__place")] = place
    booster = lightgbm.train(
        {"num_leaves": 15, "verbose": -1, "num_threads": 1, "seed": seed},
        lightgbm.Dataset(features, 100 * draw.normal(size=101)[place]),
        num_boost_round=10,
    )
    return TrainedRanker(
        text=booster.model_to_string(),
        columns=COLUMNS,
        base=1.0,
        plays=np.ones(num_tracks, np.int64),
        metrics={},
        is_active=True,
    )


def url_through(address: Address, port: int) -> str:
    """``DATABASE_URL`` of the same database by a door at ``port``."""
    there = {**address.parameters, "host": "127.0.0.1", "port": str(port)}
    return f"postgresql:///?{urlencode(there)}"


def socket_of(address: Address) -> tuple[str, int] | str:
    """Where the server of an address listens."""
    host, port = address.parameters["host"], address.parameters.get("port", "5432")
    return f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, int(port))


@dataclass(frozen=True)
class Reply:
    """How one request ended; ``status`` 0 where there was no answer at all."""

    status: int
    body: Any
    seconds: float
    error: str = ""


@dataclass
class Service:
    """One ``scripts/serve.py`` that answers, and the file of what it said."""

    port: int
    process: subprocess.Popen[bytes]
    log: Path

    def ask(self, method: str, path: str, body: object = None) -> Reply:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, PATIENCE_SECONDS)
        try:
            return asked(connection, method, path, body)
        finally:
            connection.close()

    def recommend(self, user_id: str, **more: object) -> Any:
        """The answer for one listener."""
        reply = self.ask("POST", "/recommend", {"user_id": user_id, **more})
        assert reply.status == 200, (reply, self.said())
        return reply.body

    def facts(self, said: str) -> list[dict[str, Any]]:
        """The log's lines that say so."""
        lines = [json.loads(line) for line in self.said().splitlines() if line.startswith("{")]
        return [line for line in lines if line["said"] == said]

    def said(self) -> str:
        return self.log.read_text()


def asked(
    connection: http.client.HTTPConnection, method: str, path: str, body: object = None
) -> Reply:
    """One request on a connection that may have been used before."""
    start = time.perf_counter()
    try:
        text = None if body is None else json.dumps(body)
        connection.request(method, path, text, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
        seconds = time.perf_counter() - start
        is_json = "json" in answer.getheader("Content-Type", "")
        return Reply(answer.status, json.loads(content) if is_json else content, seconds)
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        return Reply(0, None, time.perf_counter() - start, repr(error))


@contextmanager
def serving(
    *settings: str, cwd: Path, until: str = "/readyz", **environment: str
) -> Iterator[Service]:
    """A service that is ready, ended as by Ctrl-C; what it said stands in ``serve.log``.

    Args:
        settings: of ``configs/serve.yaml``; the port is chosen here.
        until: the path that must answer before the drill begins.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = cwd / "serve.log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "scripts" / "serve.py"), f"port={port}", *settings],
            cwd=cwd,
            env=os.environ | environment,
            stdout=said,
            stderr=said,
        )
    service = Service(port, process, log)
    try:
        try:
            eventually(lambda: _answers(service, until), seconds=90, pause=0.1)
        except AssertionError as late:
            raise AssertionError(f"{service.ask('GET', '/readyz')}\n{service.said()}") from late
        yield service
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError(f"the service does not end\n{service.said()}") from None


def _answers(service: Service, path: str) -> bool:
    assert service.process.poll() is None, service.said()
    return service.ask("GET", path).status in (200, 204)


def eventually(holds: Callable[[], Any], seconds: float = 30, pause: float = 0.02) -> None:
    """Wait until ``holds()``, asking every ``pause`` seconds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(pause)


@dataclass
class Callers:
    """So many callers, each with one request under way at a time, until told to stop.

    Args:
        port: of the service.
        bodies: of ``POST /recommend``, in turn.
        num: how many callers.
        pause: seconds each waits between two requests.
    """

    port: int
    bodies: Sequence[Mapping[str, object]]
    num: int = 4
    pause: float = 0.0
    replies: list[Reply] = field(default_factory=list)

    def __enter__(self) -> Callers:
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._call, args=(n,), daemon=True) for n in range(self.num)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def failed(self) -> list[Reply]:
        return [reply for reply in self.replies if reply.status != 200]

    @property
    def versions(self) -> Counter[str]:
        """How many answers each model gave."""
        return Counter(r.body["model_version"] for r in self.replies if r.status == 200)

    def _call(self, number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, PATIENCE_SECONDS)
        turn = number
        while not self._stop.is_set():
            body = self.bodies[turn % len(self.bodies)]
            self.replies.append(asked(connection, "POST", "/recommend", body))
            turn += self.num
            if self.pause:
                time.sleep(self.pause)
        connection.close()
