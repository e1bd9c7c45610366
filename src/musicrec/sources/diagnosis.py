"""What is wrong with a file as a whole, guessed from its first rows and said in one line."""

from __future__ import annotations

import codecs
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from musicrec.errors import DataError
from musicrec.sources.files import head, refuse_foreign
from musicrec.sources.rows import Broken, Fault, Rows
from musicrec.sources.times import latest_time, read_times

#: A file is judged on so many of its first rows.
JUDGED_ROWS = 1_000

#: The formats tried when times do not read, and the years in which a play is believable.
_TRIED = ("iso", "unix_s", "unix_ms", "unix_us")
_BELIEVABLE_FROM = 631_152_000_000_000  # 1990-01-01


def refuse_unreadable(path: Path) -> None:
    """DataError for content that is no text at all: a foreign archive, UTF-16, binary."""
    refuse_foreign(path)
    start = head(path)
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or _looks_utf16(start):
        raise DataError(
            f"{path} is written in UTF-16; make it UTF-8: iconv -f utf-16 -t utf-8 {path.name}"
        )
    if start.startswith(b"PAR1"):
        raise DataError(f"{path} is Parquet, not text; read it with data=table")
    if start[257:262] == b"ustar":
        raise DataError(f"{path} is a tar archive; unpack it and name the file inside")


def _looks_utf16(start: bytes) -> bool:
    half = len(start) // 2
    return half > 8 and max(start[::2].count(0), start[1::2].count(0)) > 0.8 * half


def judge_first_rows(
    rows: Rows, refused: list[Broken], columns: Mapping[str, str], time: str, place: str
) -> None:
    """DataError if more than half of the first rows are bad, with the likeliest cause.

    Args:
        refused: every refused row of the stretch, by line.
        columns: what is read → the file's column.
    """
    judged = sorted([*rows.lines.tolist(), *(row.line for row in rows.broken)])[:JUDGED_ROWS]
    bad = [row for row in refused if row.line <= judged[-1]]
    if 2 * len(bad) <= len(judged):
        return
    fault, count = Counter(row.fault for row in bad).most_common(1)[0]
    first = next(row for row in bad if row.fault == fault)
    cause = _cause(fault, rows, columns, time)
    raise DataError(
        f"{place}: {count:,} of the first {len(judged):,} rows cannot be read, such as line "
        f"{first.line}: {first.reason}{cause}"
    )


def _cause(fault: Fault, rows: Rows, columns: Mapping[str, str], time: str) -> str:
    if fault is Fault.ENCODING:
        return "; it looks like latin-1, make it UTF-8: iconv -f latin1 -t utf-8"
    if fault is Fault.COLUMNS:
        return "; is data.separator right, and data.header?"
    if fault in (Fault.TIME, Fault.RANGE) and "time" in columns:
        likelier = guess_time_format(rows.columns[columns["time"]])
        if likelier and likelier != time:
            return f"; the values look like {likelier}: say data.time={likelier}"
        return f"; is data.columns.time={columns['time']} the time? data.time={time} is assumed"
    if fault in (Fault.USER, Fault.TRACK):
        return f"; the columns read are {', '.join(f'{k}={v}' for k, v in columns.items())}"
    return ""


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
