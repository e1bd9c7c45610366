"""A source's batches, joined into chunks: what one transaction of an import stores."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from musicrec.interactions.schema import ID, LISTEN, REJECT, ListenBatch
from musicrec.sources import metadata as track_metadata

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

#: Postgres' unique index takes no longer ids, and one of this length is a broken row anyway.
LONGEST_ID = 1_000
#: The table takes times up to a day ahead by the server's clock; ours may differ by an hour.
AHEAD_SECONDS = 23 * 3600

_NOWHERE = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Ids:
    """An id column taken apart.

    Attributes:
        distinct: the ids without repeats, strings.
        code: for each row the position of its id in ``distinct``, int32.
        first: for each of ``distinct`` the place of its first row in the source; the largest
            int64 for one that has no row left.
    """

    distinct: pa.Array
    code: npt.NDArray[np.int32]
    first: Ints

    @classmethod
    def of(cls, column: pa.ChunkedArray, place: Ints) -> Ids:
        """Take apart a column of ``ID`` whose rows stand at these places of the source."""
        joined = column.unify_dictionaries().combine_chunks()
        if joined.null_count:
            raise ValueError("a source handed over a null id; such rows belong to its rejects")
        # A dictionary may repeat a value: a source is free in how it builds one.
        distinct = joined.dictionary.dictionary_encode()
        code = joined.indices.to_numpy()
        if len(distinct.dictionary) < len(distinct):
            code = distinct.indices.to_numpy()[code]
        first = np.full(len(distinct.dictionary), _NOWHERE)
        np.minimum.at(first, code, place)
        return cls(distinct.dictionary, code, first)

    def appearing(self, among: Bools) -> Ints:
        """Those of the distinct ids that have a row, of the ones asked for, oldest row first."""
        wanted = np.flatnonzero(among & (self.first < _NOWHERE))
        return wanted[np.argsort(self.first[wanted])]

    def only(self, rows: Bools, place: Ints) -> Ids:
        """The same ids with some rows taken out; ``place`` as in ``of``, for all rows."""
        first = np.full(len(self.distinct), _NOWHERE)
        np.minimum.at(first, self.code[rows], place[rows])
        return Ids(self.distinct, self.code[rows], first)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Batches that follow each other, without the rows that no table would take.

    Attributes:
        listens: rows of ``LISTEN`` in the order of the source.
        users: the user of each row of ``listens``.
        tracks: the track of each row of ``listens``, then that of each row of ``metadata``.
        metadata: rows of ``TRACK`` in the order of the source; a track may have several.
        rejected: rows of ``REJECT``, the source's and those refused here.
        rows_read: listens and rejects, as the source gave them.
        last_line: the last line covered.
        dropped: single values that became null, by reason.
    """

    listens: pa.Table
    users: Ids
    tracks: Ids
    metadata: pa.Table
    rejected: pa.Table
    rows_read: int
    last_line: int
    dropped: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, batches: list[ListenBatch]) -> Chunk:
        """Join ``batches``, of which there is at least one."""
        listens = pa.concat_tables([batch.listens for batch in batches])
        metadata = pa.concat_tables([batch.tracks for batch in batches])
        rejected = pa.concat_tables([batch.rejected for batch in batches])
        rows_read = len(listens) + len(rejected)
        heard, said = _places(batches)
        place = np.concatenate([heard, said])
        users = Ids.of(_chunked(listens["user_id"]), heard)
        tracks = Ids.of(_chunked(listens["track_id"], metadata["track_id"].cast(ID)), place)
        reason = _reasons(listens, users, tracks)
        usable = _flaws(tracks.distinct)[tracks.code[len(listens) :]] == _FINE
        if not (usable.all() and (reason == _FINE).all()):
            rejected = pa.concat_tables([rejected, _refuse(listens, reason)])
            users = users.only(reason == _FINE, heard)
            tracks = tracks.only(np.concatenate([reason == _FINE, usable]), place)
            listens = listens.filter(pa.array(reason == _FINE))
            metadata = metadata.filter(pa.array(usable))
        dropped = Counter({"track metadata without a usable id": np.count_nonzero(~usable)})
        listens = _storable_listens(listens, dropped)
        metadata = track_metadata.storable(metadata, dropped)
        return cls(
            listens, users, tracks, metadata, rejected, rows_read, batches[-1].last_line, +dropped
        )

    def reasons(self) -> Counter[str]:
        """Rejected rows by reason."""
        counts = self.rejected["reason"].value_counts()
        return Counter({entry["values"]: entry["counts"] for entry in counts.to_pylist()})

    def refuse(self, rows: Ints, reason: str) -> Chunk:
        """The same chunk with further rows of ``listens`` among the rejected ones."""
        rejects = describe_rejects(self.listens.take(pa.array(rows)), pa.repeat(reason, len(rows)))
        return replace(self, rejected=pa.concat_tables([self.rejected, rejects]))


def describe_rejects(listens: pa.Table, reason: pa.Array) -> pa.Table:
    """Rows of ``REJECT`` for rows of ``LISTEN``: the line itself is not at hand any more."""
    columns = ("user_id", "track_id", "occurred_at")
    fields = [pc.cast(listens[name], pa.string()) for name in columns]
    raw = pc.utf8_slice_codeunits(pc.binary_join_element_wise(*fields, "\t"), 0, 1_000)
    return pa.table([listens["line"], reason, raw], schema=REJECT)


_FINE = 0
_FLAWS = (
    "",
    "missing id",
    "id with a zero byte",
    f"id longer than {LONGEST_ID:,} bytes",
    "time before 1970",
    "time in the future",
)


def _flaws(ids: pa.Array) -> npt.NDArray[np.int8]:
    """For each id 0, or the position in ``_FLAWS`` of what is wrong with it."""
    flaw = np.zeros(len(ids), dtype=np.int8)
    size = pc.binary_length(ids).to_numpy()
    flaw[pc.match_substring(ids, "\0").to_numpy(zero_copy_only=False)] = 2
    flaw[size == 0] = 1
    flaw[size > LONGEST_ID] = 3
    return flaw


def _reasons(listens: pa.Table, users: Ids, tracks: Ids) -> npt.NDArray[np.int8]:
    """For each listen 0, or the position in ``_FLAWS`` of what is wrong with it."""
    reason = np.zeros(len(listens), dtype=np.int8)
    occurred_at = listens["occurred_at"].cast(pa.int64()).to_numpy()
    reason[occurred_at < 0] = 4
    reason[occurred_at > (time.time() + AHEAD_SECONDS) * 1_000_000] = 5
    for ids in (tracks, users):
        flaw = _flaws(ids.distinct)
        if flaw.any():
            of_row = flaw[ids.code[: len(listens)]]
            reason[of_row != _FINE] = of_row[of_row != _FINE]
    return reason


def _refuse(listens: pa.Table, reason: npt.NDArray[np.int8]) -> pa.Table:
    rows = np.flatnonzero(reason != _FINE)
    words = pa.array([_FLAWS[flaw] for flaw in reason[rows]], pa.string())
    return describe_rejects(listens.take(pa.array(rows)), words)


def _storable_listens(listens: pa.Table, dropped: Counter[str]) -> pa.Table:
    device = track_metadata.without_nul(listens["device"])
    listens = _with(listens, "device", device)
    negative = pc.less(listens["ms_played"], 0)
    count = pc.sum(negative).as_py() or 0
    if not count:
        return listens
    dropped["ms_played below 0 (value dropped)"] += count
    ms_played = pc.if_else(negative, pa.scalar(None, pa.int32()), listens["ms_played"])
    return _with(listens, "ms_played", ms_played)


def _with(listens: pa.Table, name: str, column: pa.ChunkedArray) -> pa.Table:
    return listens.set_column(listens.column_names.index(name), LISTEN.field(name), column)


def _chunked(*columns: pa.ChunkedArray) -> pa.ChunkedArray:
    return pa.chunked_array([part for column in columns for part in column.chunks], type=ID)


def _places(batches: list[ListenBatch]) -> tuple[Ints, Ints]:
    """Places of all listens and of all metadata rows, batch by batch, listens first.

    New ids get their keys in this order, which is the same however batches are joined.
    """
    heard, said, at = [], [], 0
    for batch in batches:
        after = at + len(batch.listens)
        heard.append(np.arange(at, after))
        at = after + len(batch.tracks)
        said.append(np.arange(after, at))
    return np.concatenate(heard), np.concatenate(said)
