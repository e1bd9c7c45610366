"""The columns of a listen and of a track, spelled once.

A *listen* at the door is one row of ``LISTEN``; everything a format knows about a track is one
row of ``TRACK``. Outside ids are text. Missing values are null, never a sentinel.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

#: Ids travel dictionary-encoded: they repeat, and only distinct ones are ever looked up.
ID = pa.dictionary(pa.int32(), pa.string())

#: One play as a source hands it over.
#:
#: ``line``        1-based line (or row, or array element) in the source, for rejects and tie order
#: ``occurred_at`` start of the play, UTC, microseconds
#: ``ms_played``   milliseconds actually heard, null where unknown
#: ``skipped``     True if the listener moved on before the end, null where unknown
LISTEN = pa.schema(
    [
        pa.field("line", pa.int64(), nullable=False),
        pa.field("user_id", ID, nullable=False),
        pa.field("track_id", ID, nullable=False),
        pa.field("occurred_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("ms_played", pa.int32()),
        pa.field("skipped", pa.bool_()),
        pa.field("device", pa.string()),
    ]
)

#: The nine audio features, in the units of the table's column comments.
AUDIO_FEATURES = (
    "danceability",
    "energy",
    "valence",
    "tempo",
    "loudness",
    "acousticness",
    "instrumentalness",
    "speechiness",
    "liveness",
)

#: What is known of a track; everything but the id may be null.
TRACK = pa.schema(
    [
        pa.field("track_id", pa.string(), nullable=False),
        pa.field("title", pa.string()),
        pa.field("artist", pa.string()),
        pa.field("album", pa.string()),
        pa.field("released_on", pa.date32()),
        pa.field("duration_ms", pa.int32()),
        pa.field("tags", pa.list_(pa.string())),
        *(pa.field(name, pa.float32()) for name in AUDIO_FEATURES),
    ]
)

#: A row that was refused; ``raw`` is the line as text, cut at 1,000 characters, bad bytes replaced.
REJECT = pa.schema(
    [
        pa.field("line", pa.int64(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("raw", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class ListenBatch:
    """What a source read in one go: at most a few hundred thousand lines.

    Attributes:
        listens: rows of ``LISTEN`` in the order of the source's lines.
        tracks: rows of ``TRACK``, one per distinct track the batch says something about; tracks
            without metadata may be left out.
        rejected: rows of ``REJECT``.
        bytes_read: bytes of the source (as stored, compressed) consumed so far, for the progress
            bar; never decreases over the batches of one source.
        last_line: the last line this batch covers.
    """

    listens: pa.Table
    tracks: pa.Table
    rejected: pa.Table
    bytes_read: int
    last_line: int
