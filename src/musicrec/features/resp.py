"""What Redis reads: commands as bytes (RESP 2)."""

from __future__ import annotations


def bulk(value: bytes) -> bytes:
    """One word of a command or reply."""
    return b"$%d\r\n%b\r\n" % (len(value), value)


def encoded(*words: bytes) -> bytes:
    """One command."""
    return b"*%d\r\n" % len(words) + b"".join(map(bulk, words))
