"""What is known of tracks, in the words of interest graphs: artists, genres, eras, moods, themes.

A *trait* is a kind and a label's ``words.key``. Each track bears some, each to a degree in
(0, 1]; they are kept row by row (CSR), so that hundreds of candidates are read in one gather.

Where they come from: the artist; every tag, as ``words.meaning`` reads it; the decade of release;
and the audio features, as ramps (``_audio_traits``). Themes of how somebody listens, such as
discovery, are no trait of any track.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from musicrec.database.engine import Dataset
from musicrec.graph.schema import Kind
from musicrec.graph.words import artist_of, era_in, key, meaning, tag_of

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
#: Rows, traits and degrees of some entries of the table.
Entries = tuple[Ints, Ints, Floats]

_AUDIO = ("danceability", "energy", "valence", "acousticness", "instrumentalness", "liveness")


class Trait(NamedTuple):
    """A kind, and a label as ``words.key`` compares it."""

    kind: Kind
    label: str


@dataclass(frozen=True)
class Traits:
    """The traits of tracks, one row each, in the order of ``track_ids``.

    Attributes:
        track_ids: outside ids, distinct; a row without entries is a track nothing is known of.
        column: the number of each trait.
        starts: ``(tracks + 1,)`` int64; row ``r`` owns entries ``starts[r]`` to ``starts[r + 1]``.
        columns: ``(entries,)`` int32, rising within a row.
        degrees: ``(entries,)`` float32 in (0, 1].
        artists: ``(tracks,)`` the column of each track's artist, -1 where it is not known.
    """

    track_ids: Sequence[str] = field(repr=False)
    column: dict[Trait, int] = field(repr=False)
    starts: Ints = field(repr=False)
    columns: npt.NDArray[np.int32] = field(repr=False)
    degrees: Floats = field(repr=False)
    artists: Ints = field(repr=False)

    def __len__(self) -> int:
        return len(self.track_ids)

    @cached_property
    def row_of(self) -> dict[str, int]:
        """The row of each track id."""
        return {track_id: row for row, track_id in enumerate(self.track_ids)}

    @cached_property
    def names(self) -> tuple[Trait, ...]:
        """The trait of each column."""
        return tuple(self.column)

    def columns_of(self, row: int) -> npt.NDArray[np.int32]:
        """The traits that one track bears, rising."""
        return self.columns[self.starts[row] : self.starts[row + 1]]

    def rows(self, track_ids: Sequence[str]) -> Ints:
        """The row of each id, -1 where there is none."""
        return np.array([self.row_of.get(track_id, -1) for track_id in track_ids], dtype=np.int64)


def read_traits(dataset: Dataset, track_ids: Sequence[str] | None = None) -> Traits:
    """The traits of a dataset's tracks.

    Args:
        track_ids: which, and in what order, such as a bundle's catalogue; those that the dataset
            lacks get an empty row. None: all, in the order they were first imported.
    """
    query = (
        "SELECT track_id, artist, tags, extract(year FROM released_on)::int AS year, "  # noqa: S608
        f"{', '.join(_AUDIO)} FROM tracks ORDER BY track_key"
    )
    wanted = None if track_ids is None else pa.array(track_ids, pa.string())
    with dataset.adbc() as connection, connection.cursor() as cursor:
        cursor.execute(query)
        reader = cursor.fetch_record_batch()
        batches = [_wanted(batch, wanted) for batch in reader]
        tracks = pa.Table.from_batches(batches, reader.schema).combine_chunks()
    if wanted is not None:
        tracks = tracks.take(pc.index_in(wanted, value_set=tracks["track_id"]))
        tracks = tracks.set_column(0, "track_id", wanted)
    return traits_of(tracks)


def _wanted(batch: pa.RecordBatch, wanted: pa.Array | None) -> pa.RecordBatch:
    return batch if wanted is None else batch.filter(pc.is_in(batch.column(0), value_set=wanted))


def traits_of(tracks: pa.Table) -> Traits:
    """The traits of rows ``(track_id, artist, tags, year, *audio)``; anything but ids may be null.

    Years are of release; audio is as in ``interactions.schema``.
    """
    column: dict[Trait, int] = {}

    def number(trait: Trait | None) -> int:
        return -1 if trait is None else column.setdefault(trait, len(column))

    artists = _named(_flat(tracks["artist"]), _artist, number)
    parts = [
        _entries(np.arange(len(tracks), dtype=np.int64), artists),
        *_tag_traits(_flat(tracks["tags"]), number),
        *_year_traits(_flat(tracks["year"]), number),
        *_audio_traits(tracks, number),
    ]
    rows, columns, degrees = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = np.lexsort((-degrees, columns, rows))
    rows, columns, degrees = rows[order], columns[order], degrees[order]
    # What is said twice, by a tag and by the audio, counts once, to its higher degree.
    first = np.ones(len(rows), dtype=bool)
    first[1:] = (rows[1:] != rows[:-1]) | (columns[1:] != columns[:-1])
    counts = np.bincount(rows[first], minlength=len(tracks))
    return Traits(
        track_ids=tracks["track_id"].to_pylist(),
        column=column,
        starts=np.concatenate([[0], counts.cumsum()]).astype(np.int64),
        columns=columns[first].astype(np.int32),
        degrees=degrees[first].astype(np.float32),
        artists=artists,
    )


Number = Callable[[Trait | None], int]


def _flat(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def _entries(rows: Ints, columns: Ints, degrees: Floats | None = None) -> Entries:
    """Those entries that name a trait."""
    if degrees is None:
        degrees = np.ones(len(rows), dtype=np.float32)
    known = (columns >= 0) & (degrees > 0)
    return rows[known], columns[known], degrees[known]


def _named(values: pa.Array, trait: Callable[[str], Trait | None], number: Number) -> Ints:
    """The column that each of ``values`` names, -1 where it is null or names none."""
    coded = values.dictionary_encode()
    of_value = np.array([number(trait(value)) for value in coded.dictionary.to_pylist()] + [-1])
    codes = pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False)
    return of_value.astype(np.int64)[codes]


def _artist(name: str) -> Trait | None:
    artist = artist_of(name)
    return Trait("artist", key(artist)) if artist else None


def _tag_traits(tags: pa.Array, number: Number) -> Iterator[Entries]:
    if not pa.types.is_list(tags.type):  # a table that knows no tag at all
        return
    rows = pc.list_parent_indices(tags).to_numpy(zero_copy_only=False).astype(np.int64)
    yield _entries(rows, _named(pc.list_flatten(tags), _tag, number))


def _tag(raw: str) -> Trait | None:
    tag = tag_of(raw)
    said = meaning(tag) if tag else None
    return Trait(said[0], key(said[1])) if said else None


def _year_traits(years: pa.Array, number: Number) -> Iterator[Entries]:
    known = np.asarray(pc.is_valid(years))
    (rows,) = known.nonzero()
    decades = years.drop_null().to_numpy(zero_copy_only=False).astype(np.int64) // 10 * 10
    values, codes = np.unique(decades, return_inverse=True)
    if len(values):
        columns = np.array([number(_era(int(value))) for value in values], dtype=np.int64)
        yield _entries(rows, columns[codes])


def _era(year: int) -> Trait | None:
    era = era_in(year)
    return Trait("era", key(era)) if era else None


def _ramp(values: Floats, none: float, full: float) -> Floats:
    """0 up to ``none``, 1 from ``full`` on (or the other way round), a line between; NaN is 0."""
    return np.nan_to_num(np.clip((values - none) / (full - none), 0, 1)).astype(np.float32)


def _audio_traits(tracks: pa.Table, number: Number) -> Iterator[Entries]:
    dance, energy, valence, acoustic, instrumental, live = (
        pc.cast(tracks[name], pa.float32()).to_numpy() for name in _AUDIO
    )
    gloom = _ramp(valence, 0.45, 0.2)
    said: dict[Trait, Floats] = {
        Trait("mood", "energetic"): _ramp(energy, 0.55, 0.85),
        Trait("mood", "calm"): _ramp(energy, 0.45, 0.2),
        Trait("mood", "happy"): _ramp(valence, 0.5, 0.8),
        Trait("mood", "melancholic"): np.minimum(gloom, _ramp(energy, 0.7, 0.4)),
        Trait("mood", "angry"): np.minimum(gloom, _ramp(energy, 0.7, 0.9)),
        Trait("theme", "party"): np.minimum(_ramp(dance, 0.6, 0.8), _ramp(valence, 0.45, 0.7)),
        Trait("theme", "instrumental"): _ramp(instrumental, 0.4, 0.7),
        Trait("theme", "vocal"): _ramp(instrumental, 0.2, 0.05),
        Trait("theme", "liveandacoustic"): np.maximum(
            _ramp(acoustic, 0.5, 0.8), _ramp(live, 0.6, 0.85)
        ),
    }
    for trait, degrees in said.items():
        (rows,) = degrees.nonzero()
        if len(rows):
            yield _entries(rows, np.full(len(rows), number(trait)), degrees[rows])
