from __future__ import annotations

import pytest

from musicrec.database.redis_address import RedisAddress
from musicrec.features.resp import encoded
from musicrec.features.slots import NUM_SLOTS, SlotMap, apart, has_moved, in_order, slot

DOOR = RedisAddress("door", 7000, "geheim", ssl=True)


def test_a_slot_is_the_crc_of_the_specification() -> None:
    assert slot(b"123456789") == 0x31C3
    assert slot(b"") == 0


@pytest.mark.parametrize(
    ("key", "same"),
    [
        (b"{user1000}.following", b"user1000"),
        (b"foo{bar}{zap}", b"bar"),
        (b"foo{{bar}}zap", b"{bar"),
        (b"}{a}", b"a"),
    ],
)
def test_what_the_first_braces_hold_is_the_key(key: bytes, same: bytes) -> None:
    assert slot(key) == slot(same)


@pytest.mark.parametrize("key", [b"foo{}{bar}", b"foo{bar", b"foo}bar{", b"{}"])
def test_braces_that_hold_nothing_are_part_of_the_key(key: bytes) -> None:
    from binascii import crc_hqx

    assert slot(key) == crc_hqx(key, 0) % NUM_SLOTS


def test_a_request_is_taken_apart_into_its_own_bytes() -> None:
    commands = [encoded(b"HMGET", key, b"\r\n$1", b"") for key in (b"a\r\n", b"", b"{a}\xff")]
    assert apart(b"".join(commands)) == [
        (slot(b"a\r\n"), commands[0]),
        *zip((0, slot(b"a")), commands[1:], strict=True),
    ]


def test_slots_are_their_nodes_and_the_rest_is_the_doors() -> None:
    reply = [
        [0, 99, [b"one", 7001, b"id"], [b"replica", 7009, b"id"]],
        [100, 199, [b"", 7002, b"id"]],  # at the host that was asked
        [200, 299, [None, 7000, b"id"]],
    ]
    one = RedisAddress("one", 7001, "geheim", ssl=True)
    two = RedisAddress("door", 7002, "geheim", ssl=True)
    slots = SlotMap(DOOR, reply)
    assert slots.nodes == [one, two, DOOR]
    found = list(slots.by_node([150, 0, 16383, 99, 299]))
    assert found == [(one, [1, 3]), (two, [0]), (DOOR, [2, 4])]
    assert in_order([(places, [f"reply {n}" for n in places]) for _, places in found]) == [
        f"reply {n}" for n in range(5)
    ]


def test_a_cluster_without_slots_is_the_door() -> None:
    assert SlotMap(DOOR, []).nodes == [DOOR]


def test_a_moved_slot_is_told_from_values_and_other_refusals() -> None:
    assert has_moved([[b"MOVED "], Exception("MOVED 866 127.0.0.1:7001")])
    assert not has_moved([[b"MOVED "], None, b"MOVED 1 a:1", Exception("ASK 866 127.0.0.1:7001")])
