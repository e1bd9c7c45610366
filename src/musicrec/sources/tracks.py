"""What a source says of its tracks, as ``TRACK`` rows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from musicrec.interactions.schema import TRACK
from musicrec.sources.values import Texts


def track_table(track: Texts, known: Mapping[str, pa.Array]) -> pa.Table:
    """One row per track that something is known of: the first value said of each field.

    Args:
        track: the track of each row, none missing.
        known: ``TRACK`` field → its value in each row, null where that row does not say.
    """
    num_tracks = len(track.values)
    said = np.zeros(num_tracks, dtype=bool)
    columns: dict[str, pa.Array] = {"track_id": track.values}
    for name, values in known.items():
        valid = values.is_valid().to_numpy(zero_copy_only=False).astype(bool)
        rows = np.flatnonzero(valid)[::-1]
        # Of several rows written to one place numpy keeps the last: reversed, the first one.
        first = np.full(num_tracks, -1, dtype=np.int64)
        first[track.codes[rows]] = rows
        said |= first >= 0
        columns[name] = values.take(pa.array(first, mask=first < 0))
    arrays = [
        columns[field.name].cast(field.type)
        if field.name in columns
        else pa.nulls(num_tracks, field.type)
        for field in TRACK
    ]
    return pa.Table.from_arrays(arrays, schema=TRACK).filter(pa.array(said))
