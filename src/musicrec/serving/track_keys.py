"""From Postgres' keys of tracks to item indices: an array instead of a join in every request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from musicrec.database.engine import Dataset
from musicrec.serving.listening import Ints


@dataclass(frozen=True)
class TrackKeys:
    """Which item each track of a dataset is.

    Attributes:
        state: of the table when it was read: how many tracks, and the highest key.
        is_timed: whether the dataset knows when plays were; else only their order.
    """

    item_of: NDArray[np.int32] = field(repr=False)
    """``(highest key + 1,)``; 0 where the model does not know the track."""
    state: tuple[int, int]
    is_timed: bool

    def items(self, keys: Ints) -> Ints:
        """``(keys,)`` item indices; 0 of tracks that the model does not know, or that are new."""
        highest = len(self.item_of) - 1
        items = self.item_of[np.minimum(keys, highest)].astype(np.int64)
        items[keys > highest] = 0
        return items


def read_keys(
    dataset: Dataset, track_ids: Sequence[str], before: TrackKeys | None = None
) -> TrackKeys:
    """Read the keys of a catalogue's tracks.

    Args:
        dataset: whose.
        track_ids: of the catalogue, in the order of item indices.
        before: of the same dataset and catalogue, given back if no track came or went since.

    Raises:
        DatabaseError: the server cannot be reached, or is lost.
    """
    import adbc_driver_postgresql.dbapi as adbc
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        with dataset.adbc() as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT (SELECT timed FROM dataset_info), count(*), coalesce(max(track_key), 0)"
                " FROM tracks"
            )
            is_timed, *state = cursor.fetchone() or (None, 0, 0)
            if before is not None and before.state == tuple(state):
                return before
            cursor.execute("SELECT track_key, track_id FROM tracks")
            tracks = cursor.fetch_arrow_table()
    except (adbc.Error, OSError) as error:
        raise dataset.address.failure(error) from error
    ids = pa.array(track_ids, pa.string())
    place = pc.index_in(tracks["track_id"].cast(pa.string()), value_set=ids)
    known = place.is_valid()
    keys = tracks["track_key"].filter(known).to_numpy()
    items = place.filter(known).to_numpy() + 1
    # Keys are given in order; where there are holes, the pages of zeros take no memory.
    item_of = np.zeros(int(state[1]) + 1, np.int32)
    item_of[keys] = items
    return TrackKeys(item_of, (int(state[0]), int(state[1])), bool(is_timed))
