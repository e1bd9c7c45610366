"""Redis' replies to the commands of one request, read as numbers.

Nearly every value is five bytes (a tag and a float32); nulls are made five bytes too, and then
numpy reads all of a request at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from musicrec.errors import FeatureError
from musicrec.features import layout
from musicrec.features.commands import Command
from musicrec.features.values import number

UNREADABLE = "in Redis cannot be read; materialize the view again"

_TAG = layout.value(0.0)[:1]
_NULL = layout.value(float("nan"))
_SIZE = len(_NULL)
_VALUE = np.dtype({"names": ["number"], "formats": ["<f4"], "offsets": [1], "itemsize": _SIZE})


def rows_of(
    commands: Sequence[Command], replies: Sequence[Any], num: int
) -> Iterator[tuple[Command, Sequence[Any]]]:
    """Each command with its replies: one, or one for each of ``num`` candidates."""
    place = 0
    for command in commands:
        end = place + (num if command.is_per_candidate else 1)
        yield command, replies[place:end]
        place = end


def values_of(
    commands: Sequence[Command], replies: Sequence[Any], num: int, width: int
) -> NDArray[np.float32]:
    """``(num, width)``: the commands' columns, in order; those beyond are left open.

    Args:
        replies: lists of values, the stamps taken off.

    Raises:
        FeatureError: a value is no number.
    """
    items = [value or _NULL for row in replies for value in row]
    data = b"".join(items)
    num_whole = list(map(len, items)).count(_SIZE)
    if num_whole != len(items) or data[::_SIZE] != _TAG * len(items):
        data = b"".join(_rewritten(commands, replies, num))
    numbers = np.frombuffer(data, _VALUE)["number"]
    out = np.empty((num, width), np.float32)
    column = place = 0
    for command in commands:
        columns = len(command.columns)
        size = columns * num if command.is_per_candidate else columns
        out[:, column : column + columns] = numbers[place : place + size].reshape(-1, columns)
        column += columns
        place += size
    return out


def _rewritten(commands: Sequence[Command], replies: Sequence[Any], num: int) -> Iterator[bytes]:
    """All values as we write them, whoever wrote them: the slow way."""
    for command, rows in rows_of(commands, replies, num):
        for row in rows:
            for name, value in zip(command.columns, row, strict=True):
                try:
                    yield layout.value(number(value or layout.NULL))
                except (ValueError, OverflowError):
                    raise FeatureError(f"{name}: its value {value!r:.80} {UNREADABLE}") from None
