"""What is wrong with a file as a whole, guessed from its first rows and said in one line."""

from __future__ import annotations

import codecs
from collections import Counter
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from musicrec.errors import DataError
from musicrec.sources.reading.files import PARQUET, Stored, head, refuse_foreign
from musicrec.sources.reading.rows import Broken, Fault, Rows
from musicrec.sources.reading.times import latest_time, read_times

#: A file is judged on so many of its first rows.
JUDGED_ROWS = 1_000

#: The formats tried when times do not read, and the years in which a play is believable.
_TRIED = ("iso", "unix_s", "unix_ms", "unix_us")
_BELIEVABLE_FROM = 631_152_000_000_000  # 1990-01-01


def refuse_no_text(path: Stored) -> None:
    """DataError for content that is no lines of text: an archive, UTF-16, a binary file."""
    refuse_foreign(path)
    start = head(path)
    if start.startswith(PARQUET):
        raise DataError(f"{path} is a Parquet file, not text; read it with data=table")
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or _looks_utf16(start):
        raise DataError(
            f"{path} is written in UTF-16; make it UTF-8: iconv -f utf-16 -t utf-8 {path.name}"
        )
    if start[257:262] == b"ustar":
        raise DataError(f"{path} is a tar archive: unpack it and name the file inside")


def refuse_json(path: Stored) -> None:
    """DataError where a format of plain lines meets JSON."""
    if looks_like_json(head(path)):
        raise DataError(f"{path} looks like JSON; read it with data=table, or with its own format")


def looks_like_json(start: bytes) -> bool:
    """Whether content that begins so is JSON: an object or an array opens it."""
    return start.removeprefix(codecs.BOM_UTF8).lstrip()[:1] in (b"{", b"[")


def _looks_utf16(start: bytes) -> bool:
    half = len(start) // 2
    return half > 8 and max(start[::2].count(0), start[1::2].count(0)) > 0.8 * half


def judge_first_rows(
    rows: Rows,
    refused: list[Broken],
    mapping: Mapping[str, str],
    place: str,
    time: str | None = None,
) -> None:
    """DataError if more than half of the first rows are bad, with the likeliest cause.

    Args:
        refused: every refused row of the stretch, by line.
        mapping: what is read → the file's column.
        time: the format times are read in, if any are.
    """
    judged = sorted([*rows.lines.tolist(), *(row.line for row in rows.broken)])[:JUDGED_ROWS]
    bad = [row for row in refused if row.line <= judged[-1]] if judged else []
    if 2 * len(bad) <= len(judged):
        return
    fault, _ = Counter(row.fault for row in bad).most_common(1)[0]
    first = next(row for row in bad if row.fault == fault)
    raise DataError(
        f"{place}: {len(bad):,} of the first {len(judged):,} rows cannot be read, such as line "
        f"{first.line}, {first.raw[:80]!r}: {first.reason}{_cause(fault, rows, mapping, time)}"
    )


def _cause(fault: Fault, rows: Rows, mapping: Mapping[str, str], time: str | None) -> str:
    if fault is Fault.ENCODING:
        return "; it looks like latin-1: say data.encoding=latin-1, or iconv -f latin1 -t utf-8"
    if fault is Fault.COLUMNS:
        return "; is it the format, the separator and the header you named?"
    if fault is Fault.SYNTAX:
        return "; it looks like JSON but is not one object a line"
    if fault in (Fault.TIME, Fault.RANGE) and time is not None:
        likelier = guess_time_format(rows.columns[mapping["time"]])
        if likelier and likelier != time:
            return f"; the values look like {likelier}: say data.time={likelier}"
        return f"; they were read as data.time={time}"
    if fault is Fault.USER:
        return "; where one person made every row, say data.user=NAME"
    read = ", ".join(f"{meaning}={column}" for meaning, column in mapping.items())
    return f"; the columns read are {read}"


def judge_times(
    rows: Rows, times: pa.ChunkedArray, mapping: Mapping[str, str], place: str, time: str
) -> None:
    """DataError if most times fell into the 1970s and another format would bring them to our day.

    A count of seconds read as milliseconds is such a time: nothing else is wrong with it.
    """
    first = times[:JUDGED_ROWS].cast(pa.int64())
    early = pc.sum(pc.less(first, _BELIEVABLE_FROM)).as_py() or 0
    if time == "order" or "time" not in mapping or 2 * early <= len(first):
        return
    likelier = guess_time_format(rows.columns[mapping["time"]])
    if likelier and likelier != time:
        raise DataError(
            f"{place}: read as {time}, {early:,} of the first {len(first):,} plays were before "
            f"1990; the values look like {likelier}: say data.time={likelier}"
        )


def guess_time_format(column: pa.ChunkedArray) -> str | None:
    """The format in which most of the first values are a time since 1990, if one is."""
    values = column.drop_null()[:JUDGED_ROWS]
    latest = latest_time()
    for time in _TRIED:
        times, ok = read_times(values, time)
        believable = ok & (times >= _BELIEVABLE_FROM) & (times <= latest)
        if 2 * int(believable.sum()) > len(values):
            return time
    return None
