"""A JSON array as a stream of its elements, for files too large to load whole."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from musicrec.errors import DataError
from musicrec.sources.reading.files import Stored, chunks

#: Elements handed over at a time.
STRETCH_ELEMENTS = 50_000

#: No play is described in so many characters: the array is broken somewhere inside.
LONGEST_ELEMENT = 4 << 20

_BETWEEN = re.compile(r"[\s,]*+")
#: An object without objects in it, found several times faster than by decoding it.
_FLAT = re.compile(r'\{[^{}"]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"[^{}"]*+)*+\}')


@dataclass(frozen=True, slots=True)
class Elements:
    """Some elements of an array, each as its own text.

    Attributes:
        first: 1-based place of the first one in the array.
    """

    texts: list[bytes]
    first: int
    bytes_read: int


def array_elements(path: Stored) -> Iterator[Elements]:
    """The elements of the array that is the content of ``path``.

    Raises:
        DataError: the array breaks off, or is damaged from some element on; the elements before
            that have been yielded.
    """
    scan = _Scan()
    texts: list[bytes] = []
    first, bytes_read = 1, 0
    torn: DataError | None = None
    try:
        for chunk in chunks(path):
            bytes_read = chunk.bytes_read
            texts.extend(scan.elements(chunk.data))
            while len(texts) > STRETCH_ELEMENTS:
                yield Elements(texts[:STRETCH_ELEMENTS], first, bytes_read)
                texts, first = texts[STRETCH_ELEMENTS:], first + STRETCH_ELEMENTS
    except DataError as error:
        torn = error
    if texts:
        yield Elements(texts, first, bytes_read)
    if torn is None and not scan.closed:
        last = f"{first + len(texts) - 1:,}"
        torn = DataError(f"{path}: its JSON array breaks off or is damaged after element {last}")
    if torn is not None:
        raise torn


def first_elements(start: bytes) -> list[bytes]:
    """The whole elements within the beginning of an array."""
    return list(_Scan().elements(start))


class _Scan:
    """Where an array's elements end, over chunks cut anywhere.

    Attributes:
        closed: the array's end was seen.
    """

    def __init__(self) -> None:
        self.closed = False
        self._text = ""
        self._position = 0
        self._opened = False
        # Bytes that are not UTF-8 travel on; the element that holds them is refused later.
        self._utf8 = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
        self._json = json.JSONDecoder()

    def elements(self, data: bytes) -> Iterator[bytes]:
        """The elements that end within ``data``; nothing once one is too long to be whole."""
        if self.closed or len(self._text) > LONGEST_ELEMENT:
            return
        self._text = self._text[self._position :] + self._utf8.decode(data)
        self._position = 0
        if not self._opened:
            self._position, self._opened = self._text.index("[") + 1, True
        while (end := self._end()) is not None:
            yield self._text[self._position : end].encode("utf-8", "surrogateescape")
            self._position = end

    def _end(self) -> int | None:
        """End of the next element, which then begins at the position; None if it is not whole."""
        between = _BETWEEN.match(self._text, self._position)
        self._position = between.end() if between else self._position
        if self._text.startswith("]", self._position):
            self.closed = True
            return None
        if flat := _FLAT.match(self._text, self._position):
            return flat.end()
        try:
            return self._json.raw_decode(self._text, self._position)[1]
        except ValueError:
            return None
