"""What every importer offers: the door through which listens come in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from musicrec.interactions.schema import ListenBatch


class Source(Protocol):
    """One file, folder or world of listens, read as a stream.

    Reading twice gives the same batches, cut at the same lines: an import that was killed relies
    on it to go on where it stopped.
    """

    #: Written to ``interactions.source``: the format's name, such as ``"spotify"``.
    name: str
    #: Whether ``occurred_at`` is a real time. An untimed source counts seconds from 1970 so that
    #: order survives; it never shares a dataset with another file.
    timed: bool

    def batches(self) -> Iterator[ListenBatch]:
        """The listens in the order of the source, a bounded number of lines at a time.

        Raises:
            DataError: the source cannot be read at all (missing, wrong format, torn archive).
        """
        ...

    def total_bytes(self) -> int:
        """Size as stored; what ``ListenBatch.bytes_read`` ends at."""
        ...

    def fingerprint(self) -> str:
        """Hash of the source's content and of every setting that changes what is read from it."""
        ...

    def describe(self) -> str:
        """The place as a person would name it, for messages: a path, or the world's name."""
        ...
