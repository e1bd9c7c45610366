"""A Redis Cluster of three nodes on the loopback, whose slots can be moved and nodes killed."""

from __future__ import annotations

import random
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from musicrec.database import embedded_redis
from musicrec.database.redis_address import RedisAddress
from musicrec.errors import DatabaseError
from musicrec.features.connection import Connection
from musicrec.features.resp import encoded
from musicrec.features.slots import NUM_SLOTS

HOST, PASSWORD = "127.0.0.1", "geheim"
SIZE = 3


class RedisCluster:
    """Started and joined; slot n is the node's of place ``n * SIZE // NUM_SLOTS``.

    Attributes:
        nodes: each by itself.
        address: of the cluster.
        ids: the nodes' names among themselves.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.nodes = [RedisAddress(HOST, port, PASSWORD) for port in free_ports()]
        self.address = RedisAddress(HOST, self.nodes[-1].port, PASSWORD, is_cluster=True)
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        try:
            for place in range(SIZE):
                (folder / str(place)).mkdir()
                self.start(place)
            self._join()
        except BaseException:
            self.stop()
            raise
        self.ids = [self.ask(place, "CLUSTER", "MYID").decode() for place in range(SIZE)]

    def start(self, place: int) -> None:
        settings = {
            "port": self.nodes[place].port,
            "bind": HOST,
            "requirepass": PASSWORD,
            "masterauth": PASSWORD,
            "save": "",
            "appendonly": "yes",
            "cluster-enabled": "yes",
            "cluster-node-timeout": 1000,
            "cluster-require-full-coverage": "no",
        }
        words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
        self._processes[place] = subprocess.Popen(
            [embedded_redis._program(), *words],
            cwd=self._folder / str(place),
            stdout=subprocess.DEVNULL,
        )
        wait(lambda: self.ask(place, "PING") == b"PONG")

    def stop(self) -> None:
        for place in self._processes:
            self.kill(place)

    def kill(self, place: int) -> None:
        self._processes[place].kill()
        self._processes[place].wait()

    def ask(self, place: int, *words: Any) -> Any:
        command = encoded(*(w if isinstance(w, bytes) else str(w).encode() for w in words))
        with Connection(self.nodes[place]) as connection:
            return connection.ask(command, 1)[0]

    def wait_until_whole(self) -> None:
        def is_whole() -> bool:
            infos = [self.ask(place, "CLUSTER", "INFO") for place in range(SIZE)]
            return all(
                b"cluster_state:ok" in info
                and b"cluster_slots_ok:%d" % NUM_SLOTS in info
                and b"cluster_known_nodes:%d" % SIZE in info
                for info in infos
            )

        wait(is_whole)

    def start_moving(self, slot: int, source: int, target: int) -> None:
        """From here on the slot is nobody's alone."""
        self.ask(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", self.ids[source])
        self.ask(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", self.ids[target])
        while keys := self.ask(source, "CLUSTER", "GETKEYSINSLOT", slot, 100):
            options = ("AUTH", PASSWORD, "KEYS", *keys)
            self.ask(source, "MIGRATE", HOST, self.nodes[target].port, "", 0, 5000, *options)

    def end_moving(self, slot: int, target: int) -> None:
        for place in (target, *range(SIZE)):
            self.ask(place, "CLUSTER", "SETSLOT", slot, "NODE", self.ids[target])

    def _join(self) -> None:
        for place, node in enumerate(self.nodes):
            slots = [n for n in range(NUM_SLOTS) if n * SIZE // NUM_SLOTS == place]
            self.ask(place, "CLUSTER", "ADDSLOTS", *slots)
            self.ask(place, "CLUSTER", "SET-CONFIG-EPOCH", place + 1)
            if place:
                self.ask(0, "CLUSTER", "MEET", HOST, node.port)
        self.wait_until_whole()


def free_ports() -> list[int]:
    """Whose ports of the cluster's own talk, 10000 above, are free as well."""
    found: list[int] = []
    while len(found) < SIZE:
        port = random.randrange(11_000, 22_000)  # both below those that the kernel gives out
        with socket.socket() as one, socket.socket() as other:
            try:
                one.bind((HOST, port))
                other.bind((HOST, port + 10_000))
            except OSError:
                continue
        found.append(port)
    return found


def wait(is_done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            if is_done():
                return
        except DatabaseError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.02)
