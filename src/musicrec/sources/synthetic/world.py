"""The synthetic world as a source of listens whose true next-track distribution is known."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, date, datetime

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from musicrec.errors import ConfigError, DataError
from musicrec.interactions.schema import LISTEN, REJECT, TRACK, ListenBatch
from musicrec.sources.synthetic.listeners import make_listener
from musicrec.sources.synthetic.listening import Diary, Listening
from musicrec.sources.synthetic.tracks import Ints, make_tracks, track_id

#: Raised whenever the process changes: another version is another world.
VERSION = 1
FIRST_DAY = date(2024, 1, 1)
#: A batch ends with the listener that fills it.
BATCH_LISTENS = 100_000
#: What each setting can be at least and at most; more than two years could end in the future.
BOUNDS = {
    "seed": (0, 2**32 - 1),
    "num_tracks": (100, 1_000_000),
    "num_listeners": (1, 1_000_000),
    "days": (14, 731),
}


class SyntheticWorld:
    """Invented listeners, tracks and plays; ``docs/synthetic-world.md`` tells how they come about.

    Args:
        seed: another seed is another world.
        num_tracks: size of the catalogue.
        num_listeners: listener ``i`` is the same however many others there are.
        days: from 1 January 2024.

    Raises:
        ConfigError: a setting outside ``BOUNDS``.
    """

    name = "synthetic"
    timed = True

    def __init__(
        self,
        *,
        seed: int = 7,
        num_tracks: int = 1500,
        num_listeners: int = 1500,
        days: int = 182,
    ) -> None:
        self.seed = seed
        self.num_tracks = num_tracks
        self.num_listeners = num_listeners
        self.days = days
        for key, (least, most) in BOUNDS.items():
            if not least <= getattr(self, key) <= most:
                raise ConfigError(
                    f"data.{key}={getattr(self, key)} makes no synthetic world:"
                    f" set it between {least} and {most}"
                )
        self._tracks = make_tracks(np.random.default_rng([seed, 1]), num_tracks, FIRST_DAY, days)
        self._popularity = np.stack([self._tracks.popularity_on(day) for day in range(days)])

    @property
    def track_ids(self) -> list[str]:
        """The catalogue, in the order of ``next_track_distribution``."""
        return [track_id(row) for row in range(self.num_tracks)]

    def batches(self) -> Iterator[ListenBatch]:
        """Listener after listener; the whole catalogue comes with the first batch."""
        tracks, last_line = self._tracks.metadata, 0
        users: list[str] = []
        diaries: list[Diary] = []
        waiting = 0
        for listener in range(self.num_listeners):
            diary = self._diary(listener)
            users.append(_user_id(listener))
            diaries.append(diary)
            waiting += len(diary.track)
            if waiting >= BATCH_LISTENS or listener == self.num_listeners - 1:
                last_line += waiting
                yield ListenBatch(
                    listens=_listens(users, diaries, last_line - waiting),
                    tracks=tracks,
                    rejected=REJECT.empty_table(),
                    bytes_read=listener + 1,
                    last_line=last_line,
                )
                tracks, users, diaries, waiting = TRACK.empty_table(), [], [], 0

    def total_bytes(self) -> int:
        """A world has no bytes: its progress is counted in listeners."""
        return self.num_listeners

    def fingerprint(self) -> str:
        """Hash of the version and every setting; they determine each play."""
        settings = (VERSION, self.seed, self.num_tracks, self.num_listeners, self.days)
        return hashlib.sha256(repr(("synthetic", *settings)).encode()).hexdigest()

    def describe(self) -> str:
        return f"the synthetic world of seed {self.seed}"

    def oracle_ranks(self) -> dict[str, NDArray[np.int32]]:
        """For each listener, the rank of every played track in its true distribution.

        One entry a play in time order; 1 is best, ties count against the track played, and the
        whole catalogue is ranked. No model can be expected to rank better.
        """
        return {_user_id(listener): self._ranks(listener) for listener in range(self.num_listeners)}

    def next_track_distribution(self, user_id: str, position: int) -> NDArray[np.float64]:
        """``(tracks,)`` true probabilities of a listener's play number ``position``, from 0.

        Given everything: the listener's latent traits, the session's way, style and mood, and
        the plays before.

        Raises:
            DataError: no such listener, or fewer plays.
        """
        weights = self.next_track_weights(user_id, position)
        return weights / int(weights.sum())

    def next_track_weights(self, user_id: str, position: int) -> Ints:
        """As ``next_track_distribution``, as the exact integers the draw is made with."""
        for play, (choice, _) in enumerate(self.listening(self._listener_of(user_id)).choices()):
            if play == position:
                return choice.weights()
        raise DataError(f"{user_id} of {self.describe()} has no play number {position}")

    def _listener_of(self, user_id: str) -> int:
        digits = user_id.rpartition("-")[2]
        listener = int(digits) if digits.isdecimal() else -1
        if not (0 <= listener < self.num_listeners and _user_id(listener) == user_id):
            raise DataError(f"{self.describe()} has no listener {user_id!r}")
        return listener

    def listening(self, listener: int) -> Listening:
        """The life of listener number ``listener``, from the beginning."""
        rng = np.random.default_rng([self.seed, 0, listener])
        traits = make_listener(rng, self._tracks, self.days)
        return Listening(rng, self._tracks, self._popularity, traits, FIRST_DAY)

    def _ranks(self, listener: int) -> NDArray[np.int32]:
        ranks = []
        for choice, track in self.listening(listener).choices():
            weights = choice.weights()
            ranks.append(np.count_nonzero(weights >= weights[track]))
        return np.array(ranks, dtype=np.int32)

    def _diary(self, listener: int) -> Diary:
        life = self.listening(listener)
        for _ in life.choices():
            pass
        return life.diary


def _user_id(listener: int) -> str:
    return f"listener-{listener:06d}"


def _listens(users: list[str], diaries: list[Diary], lines_before: int) -> pa.Table:
    """Rows of ``LISTEN``; track dictionaries hold the played tracks only, by id."""
    plays = [len(diary.track) for diary in diaries]
    played, codes = np.unique(np.concatenate([d.track for d in diaries]), return_inverse=True)
    midnight = int(datetime(FIRST_DAY.year, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
    start = np.concatenate([d.start for d in diaries]) * 1000 + midnight
    columns = {
        "line": np.arange(lines_before + 1, lines_before + sum(plays) + 1),
        "user_id": pa.DictionaryArray.from_arrays(
            np.repeat(np.arange(len(users), dtype=np.int32), plays), users
        ),
        "track_id": pa.DictionaryArray.from_arrays(
            codes.astype(np.int32), [track_id(row) for row in played]
        ),
        "occurred_at": pa.array(start, pa.timestamp("us", tz="UTC")),
        "ms_played": np.concatenate([d.played for d in diaries]).astype(np.int32),
        "skipped": np.concatenate([d.skipped for d in diaries]),
        "device": [device for d in diaries for device in d.device],
    }
    return pa.table(columns, schema=LISTEN)
