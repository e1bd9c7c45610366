"""A Redis Cluster, asked as if it were one server: blocking, by asyncio, and for thousands of rows.

A request goes to all nodes that have a key of it at once, so it takes as long as the slowest. The
map of slots is asked for when it is first needed and whenever it proves wrong: a node refuses
(MOVED) or does not answer. A request is tried twice, the second time by a new map, of which
another node is asked each time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from musicrec.database.redis_address import RedisAddress
from musicrec.features.connection import Connection
from musicrec.features.line import Lines
from musicrec.features.slots import CLUSTER_SLOTS, SlotMap, apart, has_moved, in_order, slot, words
from musicrec.features.wire import Wire, check_welcome

_Commands = list[tuple[int, bytes]]


class _Known:
    """What is known of a cluster.

    Attributes:
        slots: None if nothing, or if it proved wrong.
    """

    def __init__(self, address: RedisAddress) -> None:
        self._named = replace(address, is_cluster=False)
        self._doors = deque([self._named])
        self.slots: SlotMap | None = None

    def door(self) -> RedisAddress:
        """Whom to ask for the map: each time another, since the last may be dead."""
        self._doors.rotate(-1)
        return self._doors[-1]

    def learn(self, door: RedisAddress, replies: list[Any]) -> SlotMap:
        check_welcome(replies)
        self.slots = SlotMap(door, replies[0])
        others = [node for node in (*self.slots.nodes, self._named) if node != door]
        self._doors = deque([*dict.fromkeys(others), door])
        return self.slots


class Cluster:
    """As ``Wire``.

    Args:
        address: any node.
    """

    def __init__(self, address: RedisAddress) -> None:
        self._known = _Known(address)
        self._wires: dict[RedisAddress, Wire] = {}

    def ask(self, request: bytes, count: int, deadline: float) -> list[Any]:
        """As ``Wire.ask``."""
        commands = apart(request)
        try:
            replies = self._exchange(commands, deadline)
        except TimeoutError:
            raise
        except OSError:
            self.close()
        else:
            if not has_moved(replies):
                return replies
            self._known.slots = None
        return self._exchange(commands, deadline)

    def close(self) -> None:
        """As ``Wire.close``; the map is forgotten, too."""
        self._known.slots = None
        for wire in self._wires.values():
            wire.close()

    def _exchange(self, commands: _Commands, deadline: float) -> list[Any]:
        slots = self._known.slots
        if slots is None:
            door = self._known.door()
            with _named(door):
                slots = self._known.learn(door, self._wire(door).ask(CLUSTER_SLOTS, 1, deadline))
        groups = list(slots.by_node(each for each, _ in commands))
        for node, places in groups:
            with _named(node):
                self._wire(node).send(b"".join([commands[n][1] for n in places]), deadline)
        parts = []
        for node, places in groups:
            with _named(node):
                parts.append((places, self._wire(node).receive(len(places), deadline)))
        return in_order(parts)

    def _wire(self, node: RedisAddress) -> Wire:
        if node not in self._wires:
            self._wires[node] = Wire(node)
        return self._wires[node]


class AsyncCluster:
    """As ``Lines``.

    Args:
        address: any node.
        num_connections: to each node.
    """

    def __init__(self, address: RedisAddress, num_connections: int) -> None:
        self._known = _Known(address)
        self._num_connections = num_connections
        self._lines: dict[RedisAddress, Lines] = {}
        self._asking = asyncio.Lock()

    async def ask(self, request: bytes, count: int, limit: asyncio.Timeout) -> list[Any]:
        """As ``Lines.ask``."""
        commands = apart(request)
        try:
            replies = await self._exchange(commands, limit)
        except OSError:
            return await self._exchange(commands, limit)
        return await self._exchange(commands, limit) if has_moved(replies) else replies

    def close(self) -> None:
        """As ``Lines.close``."""
        for lines in self._lines.values():
            lines.close()

    async def _exchange(self, commands: _Commands, limit: asyncio.Timeout) -> list[Any]:
        slots = self._known.slots or await self._learned(limit)
        is_right = False
        try:
            groups = list(slots.by_node(each for each, _ in commands))
            asked = [
                self._of(node).ask(b"".join([commands[n][1] for n in places]), len(places), limit)
                for node, places in groups
            ]
            # Whatever becomes of one, the others are waited for: they would outlive the limit.
            found = await asyncio.gather(*asked, return_exceptions=True)
            parts = []
            for (node, places), each in zip(groups, found, strict=True):
                with _named(node):
                    if isinstance(each, BaseException):
                        raise each
                    parts.append((places, each))
            replies = in_order(parts)
            is_right = not has_moved(replies)
            return replies
        finally:
            if not is_right and self._known.slots is slots:
                self._known.slots = None

    async def _learned(self, limit: asyncio.Timeout) -> SlotMap:
        async with self._asking:
            if self._known.slots:  # by whoever waited before
                return self._known.slots
            door = self._known.door()
            with _named(door):
                return self._known.learn(door, await self._of(door).ask(CLUSTER_SLOTS, 1, limit))

    def _of(self, node: RedisAddress) -> Lines:
        if node not in self._lines:
            self._lines[node] = Lines(node, self._num_connections)
        return self._lines[node]


class Nodes:
    """Connections to all that hold rows: to the one server, or to each node of a cluster.

    The map is asked for once: where slots move, Redis refuses, and the run is to be repeated.

    Attributes:
        all: the connections.
    """

    def __init__(self, all_: list[Connection], slots: SlotMap | None) -> None:
        self.all = all_
        self._slots = slots

    def by_node(self, commands: memoryview) -> Iterator[tuple[Connection, list[int] | None]]:
        """For each node that has a command's key, the commands' places; None are all."""
        if self._slots is None:
            yield self.all[0], None
            return
        connections = {connection.address: connection for connection in self.all}
        for node, places in self._slots.by_node(slot(each[1]) for each in words(commands)):
            yield connections[node], places


@contextmanager
def connected(address: RedisAddress) -> Iterator[Nodes]:
    """Open connections to the one server, or to each node of the cluster.

    Raises:
        DatabaseError: one is refused.
    """
    with ExitStack() as stack:
        named = stack.enter_context(Connection(replace(address, is_cluster=False)))
        if not address.is_cluster:
            yield Nodes([named], None)
            return
        slots = SlotMap(named.address, named.ask(CLUSTER_SLOTS, 1)[0])
        yield Nodes([stack.enter_context(Connection(node)) for node in slots.nodes], slots)


@contextmanager
def _named(node: RedisAddress) -> Iterator[None]:
    """Say which node it is that cannot be asked."""
    try:
        yield
    except TimeoutError:
        raise
    except OSError as error:
        raise ConnectionError(f"its node {node.place}: {error}") from error
