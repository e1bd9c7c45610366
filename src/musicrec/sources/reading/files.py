"""Stored files as a stream of whole lines: found, decompressed and cut, whatever their name.

Compression is told by the file's first bytes. Memory stays flat: one stretch of lines at a time.
"""

from __future__ import annotations

import codecs
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np

from musicrec.errors import DataError

#: Stored bytes read at a time. Small enough that even text compressed 1,000 times stays bounded.
READ_BYTES = 1 << 18
#: A stretch of lines ends at whichever of these comes first.
STRETCH_BYTES = 16 << 20
STRETCH_LINES = 250_000
#: No table has a line this long; a binary file does.
LONGEST_LINE_BYTES = 64 << 20
#: What is looked at to tell separator, encoding and columns.
HEAD_BYTES = 1 << 16

PARQUET = b"PAR1"
_GZIP = b"\x1f\x8b"
_FOREIGN = {
    b"PK\x03\x04": "a zip archive: unzip it first",
    b"BZh": "bzip2: bunzip2 it first",
    b"\xfd7zXZ\x00": "xz: unxz it first",
    b"\x28\xb5\x2f\xfd": "zstandard: unzstd it first",
    b"Rar!": "a rar archive: unpack it first",
    b"7z\xbc\xaf": "a 7z archive: unpack it first",
    b"SQLite format 3": "an SQLite database: export the table as CSV first",
    b"\xd0\xcf\x11\xe0": "an Excel workbook: save it as CSV first",
}


@dataclass(frozen=True, slots=True)
class Chunk:
    """Decompressed bytes as they come, cut anywhere.

    Attributes:
        bytes_read: stored bytes consumed to get here.
        at_end: nothing follows.
    """

    data: bytes
    bytes_read: int
    at_end: bool


@dataclass(frozen=True, slots=True)
class Stretch:
    """Whole lines, each ended by ``\\n``, save perhaps the last line of the file.

    Attributes:
        first_line: 1-based number of the first line within the file.
    """

    text: bytes
    first_line: int
    bytes_read: int
    at_end: bool


@dataclass(frozen=True, slots=True)
class ZipMember:
    """A file inside a zip archive, read without unpacking the archive."""

    archive: Path
    name: str
    size: int

    def open(self, mode: Literal["rb"]) -> IO[bytes]:
        """The member's content, unpacked as it is read."""
        try:
            with zipfile.ZipFile(self.archive) as archive:
                return archive.open(self.name)
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
            raise DataError(f"{self} cannot be read: {error}") from error

    def __str__(self) -> str:
        return f"{self.archive}/{self.name}"


#: A file on disk, or one inside a zip; of the latter the size and bytes read are the unpacked ones.
Stored = Path | ZipMember


def stored_size(path: Stored) -> int:
    """Bytes as stored; what ``bytes_read`` ends at."""
    return path.size if isinstance(path, ZipMember) else path.stat().st_size


def existing_file(path: Path, key: str = "data.path") -> Path:
    """``path`` if it is a readable, non-empty file; a DataError that says what is wrong if not."""
    file = path.expanduser()
    if file.is_dir():
        inside = sorted(child.name for child in file.iterdir() if child.is_file())
        hint = f"; it holds {', '.join(inside[:4])}" if inside else ""
        raise DataError(f"{key}={file} is a folder, not a file{hint}")
    if not file.exists():
        raise DataError(f"{key}={file} does not exist (looked from {Path.cwd()})")
    if file.stat().st_size == 0:
        raise DataError(f"{key}={file} is empty: 0 bytes")
    return file


def open_stored(path: Stored) -> IO[bytes]:
    """The file's stored bytes; a refusal of the system as a DataError."""
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(f"{path} cannot be opened: {error.strerror}") from error


def magic(path: Stored) -> bytes:
    """The first 16 stored bytes."""
    with open_stored(path) as file:
        return file.read(16)


def is_gzip(path: Stored) -> bool:
    """Whether the content is gzip, by its first bytes."""
    return magic(path).startswith(_GZIP)


def refuse_foreign(path: Stored) -> None:
    """DataError for a container this project does not open, naming it and the way out."""
    start = magic(path)
    for signature, advice in _FOREIGN.items():
        if start.startswith(signature):
            raise DataError(f"{path} is {advice}")


def chunks(path: Stored) -> Iterator[Chunk]:
    """The decompressed content. A torn file yields what it holds, then raises a DataError."""
    pending: Chunk | None = None
    try:
        for data, bytes_read in _gunzipped(path) if is_gzip(path) else _plain(path):
            if pending is not None:
                yield pending
            pending = Chunk(data, bytes_read, at_end=False)
    except DataError:
        if pending is not None:
            yield pending
        raise
    if pending is None:
        raise DataError(f"{path} is empty once decompressed")
    yield Chunk(pending.data, stored_size(path), at_end=True)


def _plain(path: Stored) -> Iterator[tuple[bytes, int]]:
    bytes_read = 0
    with open_stored(path) as file:
        try:
            while data := file.read(READ_BYTES):
                bytes_read += len(data)
                yield data, bytes_read
        except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
            raise DataError(
                f"{path} cannot be read beyond byte {bytes_read:,}: {error}; fetch it again"
            ) from error


def _gunzipped(path: Stored) -> Iterator[tuple[bytes, int]]:
    """Members of a gzip file one after the other; zero padding after the last is allowed."""
    with open_stored(path) as file:
        member = zlib.decompressobj(wbits=31)
        bytes_read, ended = 0, False
        while stored := file.read(READ_BYTES):
            bytes_read += len(stored)
            while stored:
                if member.eof:
                    stored = stored.lstrip(b"\0")
                    if not stored:
                        break
                    member = zlib.decompressobj(wbits=31)
                try:
                    data = member.decompress(stored)
                except zlib.error as error:
                    raise _torn(path, bytes_read) from error
                stored = member.unused_data
                ended = member.eof
                if data:
                    yield data, bytes_read
    if not ended:
        raise _torn(path, bytes_read)


def _torn(path: Stored, bytes_read: int) -> DataError:
    return DataError(
        f"{path} is torn: its gzip stream breaks off or is damaged near byte {bytes_read:,} of "
        f"{stored_size(path):,}; fetch the file again"
    )


def head(path: Stored) -> bytes:
    """The first ``HEAD_BYTES`` of decompressed content, or what a torn file gives of them."""
    start = b""
    try:
        for chunk in chunks(path):
            start += chunk.data
            if len(start) >= HEAD_BYTES:
                break
    except DataError:
        if not start:
            raise  # else the tear is told when reading gets there
    return start[:HEAD_BYTES]


def stretches(path: Stored, max_bytes: int = STRETCH_BYTES) -> Iterator[Stretch]:
    """The file's lines, a bounded number at a time, always cut at the same places.

    A byte order mark is taken off; ``\\r\\n`` becomes ``\\n``, and so does ``\\r`` where the file
    has no ``\\n`` at all; any other ``\\r`` stands inside a value and becomes a space.

    Raises:
        DataError: the file is torn; every whole line before the tear has been yielded.
    """
    first_line, bytes_before = 1, 0
    for text, cuts, bytes_read, at_end in _gathered(path, max_bytes):
        start = 0
        for end in cuts:
            bytes_here = bytes_before + (bytes_read - bytes_before) * end // len(text)
            lines = _line_ends(text[start:end])
            yield Stretch(lines, first_line, bytes_here, at_end and end == len(text))
            first_line += lines.count(b"\n")
            start = end
        bytes_before = bytes_here


def _gathered(path: Stored, max_bytes: int) -> Iterator[tuple[bytes, list[int], int, bool]]:
    """``(text, ends of its stretches, bytes read, at end)``; what follows the last end returns."""
    start = head(path)
    mac_lines = b"\n" not in start and b"\r" in start
    parts: list[bytes] = []
    num_bytes = num_lines = bytes_read = 0
    marked = start.startswith(codecs.BOM_UTF8)
    try:
        for chunk in chunks(path):
            data = chunk.data.replace(b"\r", b"\n") if mac_lines else chunk.data
            if marked:
                data, marked = data.removeprefix(codecs.BOM_UTF8), False
            parts.append(data)
            num_bytes, num_lines = num_bytes + len(data), num_lines + data.count(b"\n")
            bytes_read = chunk.bytes_read
            if chunk.at_end or num_lines >= STRETCH_LINES or num_bytes >= max_bytes:
                text = b"".join(parts)
                cuts = _cuts(text, chunk.at_end, max_bytes)
                if cuts:
                    yield text, cuts, bytes_read, chunk.at_end
                elif len(text) > LONGEST_LINE_BYTES:
                    raise DataError(f"{path} has a line of over 64 MB: no table of lines")
                parts = [text[cuts[-1] :] if cuts else text]
                num_bytes, num_lines = len(parts[0]), parts[0].count(b"\n")
    except DataError:
        text = b"".join(parts)
        if whole := text.rfind(b"\n") + 1:
            yield text, _cuts(text[:whole], True, max_bytes), bytes_read, False
        raise


def _cuts(text: bytes, at_end: bool, max_bytes: int) -> list[int]:
    """Where the stretches of ``text`` end; at its end, the last may be short."""
    ends = np.flatnonzero(np.frombuffer(text, dtype=np.uint8) == ord("\n")) + 1
    cuts: list[int] = ends[STRETCH_LINES - 1 :: STRETCH_LINES].tolist()
    if at_end and text and (not cuts or cuts[-1] < len(text)):
        return [*cuts, len(text)]
    if not cuts and len(text) >= max_bytes and len(ends):
        return [int(ends[-1])]
    return cuts


def num_lines(text: bytes) -> int:
    """Lines of ``text``, the last one counted even if nothing ends it."""
    return text.count(b"\n") + (text != b"" and not text.endswith(b"\n"))


def _line_ends(text: bytes) -> bytes:
    if b"\r" not in text:
        return text
    return text.replace(b"\r\n", b"\n").replace(b"\r", b" ")
