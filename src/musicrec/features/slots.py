"""Which node of a Redis Cluster has which key; no I/O in here.

A key belongs to one of 16384 slots, and a slot to one node (Redis Cluster specification, "Key
distribution model"). A request is taken apart into commands, each goes to the node of its key, and
the replies are put back into the request's order.
"""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from musicrec.database.redis_address import RedisAddress
from musicrec.features.resp import encoded

NUM_SLOTS = 16384

#: Asks any node for the slots of all.
CLUSTER_SLOTS = encoded(b"CLUSTER", b"SLOTS")


def slot(key: bytes) -> int:
    """CRC16 (XMODEM) of the key, or of what its first braces hold, if they hold something."""
    start = key.find(b"{") + 1
    if start and (end := key.find(b"}", start)) > start:
        key = key[start:end]
    return crc_hqx(key, 0) % NUM_SLOTS


def words(commands: bytes | memoryview) -> Iterator[list[bytes]]:
    """Each command's, of which the second is the key."""
    import hiredis

    reader = hiredis.Reader()
    reader.feed(bytes(commands))
    while (found := reader.gets()) is not False:
        yield found


def apart(commands: bytes) -> list[tuple[int, bytes]]:
    """Each command, behind its slot."""
    import hiredis

    pack: Any = hiredis.pack_command  # its stub knows commands of one word only
    return [(slot(each[1]), pack(tuple(each))) for each in words(commands)]


class SlotMap:
    """The nodes, as one of them told.

    Args:
        door: who was asked; its password and TLS are those of all nodes.
        reply: to ``CLUSTER SLOTS``.

    Attributes:
        nodes: those that own slots; replicas are not read. Just the door if there are none: it
            says in its own words what is wrong with the cluster.
    """

    def __init__(self, door: RedisAddress, reply: Iterable[Any]) -> None:
        owners = [door] * NUM_SLOTS
        for first, last, (host, port, *_), *_ in reply:
            node = replace(door, host=(host or b"").decode() or door.host, port=port)
            owners[first : last + 1] = [node] * (last + 1 - first)
        self.nodes = list(dict.fromkeys(owners))
        places = {node: place for place, node in enumerate(self.nodes)}
        self._owners = [places[owner] for owner in owners]

    def by_node(self, slots: Iterable[int]) -> Iterator[tuple[RedisAddress, list[int]]]:
        """For each node that has any of the slots, their places."""
        found: list[list[int]] = [[] for _ in self.nodes]
        for place, each in enumerate(slots):
            found[self._owners[each]].append(place)
        return ((node, places) for node, places in zip(self.nodes, found, strict=True) if places)


def in_order(parts: Sequence[tuple[Sequence[int], Sequence[Any]]]) -> list[Any]:
    """All replies, of which each node gave those of some places."""
    replies = [None] * sum(len(places) for places, _ in parts)
    for places, found in parts:
        for place, reply in zip(places, found, strict=True):
            replies[place] = reply
    return replies


def has_moved(replies: Iterable[Any]) -> bool:
    """Whether a node says that a slot is another's by now."""
    return any(isinstance(each, Exception) and str(each).startswith("MOVED ") for each in replies)
