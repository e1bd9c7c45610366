"""The id of a track that has none: its artist and title, normalised."""

from __future__ import annotations

import unicodedata

import numpy as np
import pyarrow as pa

from musicrec.sources.reading.values import Texts

#: Between artist and title in a made id.
JOIN = " :: "


def normalised(name: str) -> str:
    """``name`` as ids compare it: NFKC, case folded, each run of white space one space.

    Normalising twice changes nothing.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return " ".join(folded.split())


def made_track_ids(artist: Texts, title: Texts) -> Texts:
    """``artist :: title`` per row, missing where either is; made once per distinct pair."""
    known = ~artist.missing & ~title.missing
    pairs = artist.codes.astype(np.int64) * max(len(title.values), 1) + title.codes
    _, first, codes = np.unique(pairs[known], return_index=True, return_inverse=True)
    rows = np.flatnonzero(known)[first]
    artists, titles = _normalised(artist), _normalised(title)
    made = pa.array(
        [artists[artist.codes[row]] + JOIN + titles[title.codes[row]] for row in rows], pa.string()
    )
    all_codes = np.full(len(known), -1, dtype=np.int32)
    all_codes[known] = codes
    spelled = made.take(pa.array(all_codes, mask=~known))
    return Texts.of(spelled)


def _normalised(texts: Texts) -> list[str]:
    return [normalised(value) for value in texts.values.to_pylist()]
