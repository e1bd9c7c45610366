"""Why each track of an answer is recommended, in words that evidence bears out. No I/O in here.

A reason says what was counted and nothing else: plays of the listener that were not skipped, what
they liked, their interest graph, how often tracks follow each other in what the model learnt from,
which embeddings are near, how many listeners played it. Where nothing of that speaks for a track,
its reason is that the model picked it.

What others did is said of many or not at all: ``FEWEST``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from musicrec.interactions.catalogue import Catalogue
from musicrec.models.sasrec import SASRec
from musicrec.models.transitions import TransitionMemory
from musicrec.serving.asking import Source
from musicrec.serving.interests import Interests
from musicrec.serving.listening import KEPT_PLAYS, Ints, Listening
from musicrec.serving.pipeline import Chosen

Floats = NDArray[np.float32]

#: Reasons of a track, at most.
MOST = 3

#: Plays and listeners of others of whom fewer are not spoken of.
FEWEST = 5

#: How many of the newest different tracks may be what another one follows or is close to.
RECENT = 20

#: A track follows another often if it does so at least so many times as often as by chance.
OFTEN = 3.0

#: Two tracks are close if so many of all pairs are further apart. In the synthetic world 65 of 100
#: such pairs are of one artist, where 2 are by chance; on 30Music 98 of 100 of the pairs that were
#: played right after each other five times or more are so close (docs/serving.md).
CLOSE = 0.999

_PAIRS, _CHUNK = 200_000, 10_000
_DAY = 86_400_000_000  # microseconds


@dataclass(frozen=True, slots=True)
class Week:
    """How many played the tracks of an answer, in the seven days before the end of a window.

    Attributes:
        listeners: ``(tracks,)`` different ones; NaN where it is not known.
        ends: ``(tracks,)`` microseconds since 1970, UTC, exclusive.
    """

    listeners: Floats
    ends: Ints


@dataclass(frozen=True, slots=True)
class Grounds:
    """What the reasons of one answer may rest on.

    Attributes:
        listening: of the listener.
        at: the moment of the answer, microseconds since 1970, UTC.
        interests: None where there is no graph.
        week: of the answer's tracks, in their order; None where it is not known of any.
    """

    listening: Listening
    at: float = 0
    interests: Interests | None = None
    week: Week | None = None


class Reasons:
    """Says why; made once for a model.

    Args:
        catalogue: of the model.
        model: its embeddings and its memory of transitions are evidence.
        table: the model's ``output_table()``, from whoever has it already.
    """

    def __init__(self, catalogue: Catalogue, model: SASRec, table: Tensor | None = None) -> None:
        self.catalogue = catalogue
        self._max_length = model.max_length
        table = model.output_table() if table is None else table
        self._table: Floats = table.detach().numpy()
        self._close = _distance_of(self._table)
        self._memory = None
        if len(model.transitions):  # the first is of what came right after
            memory = cast(TransitionMemory, model.transitions[0])
            self._memory = tuple(
                each.numpy() for each in (memory.successors, memory.counts, memory.totals)
            )
        plays = np.concatenate([[0], catalogue.play_counts])
        self._chance = plays / max(plays.sum(), 1)

    def of(self, chosen: Sequence[Chosen], grounds: Grounds) -> list[tuple[str, ...]]:
        """One to ``MOST`` reasons of each track, the one that brought it in first."""
        found = _Found(self, np.array([track.item for track in chosen], np.int64), grounds)
        return [found.reasons(place, track) for place, track in enumerate(chosen)]

    def after(self, recent: Ints, items: Ints) -> list[tuple[int, int] | None]:
        """Which of the recent items each item most often came right after, and how many times.

        By the share of what followed; of equals the first. None where it follows none often.
        """
        if self._memory is None or not len(recent):
            return [None] * len(items)
        successors, counts, totals = self._memory
        is_next = successors[recent][:, :, None] == items
        times = np.where(is_next, counts[recent][:, :, None], 0).sum(axis=1)
        share = times / np.maximum(totals[recent], 1)[:, None]
        is_often = (
            (times >= FEWEST)
            & (share >= OFTEN * self._chance[items])
            & (recent[:, None] != items)  # a track on end is a repeat
        )
        share = np.where(is_often, share, 0)
        best = share.argmax(axis=0)
        return [
            (int(recent[row]), int(times[row, place])) if share[row, place] > 0 else None
            for place, row in enumerate(best.tolist())
        ]

    def nearest(self, recent: Ints, items: Ints) -> list[int | None]:
        """Which of the recent items each item is closest to; None where it is close to none."""
        if not len(recent):
            return [None] * len(items)
        cosines = _directions(self._table[recent]) @ _directions(self._table[items]).T
        cosines[recent[:, None] == items] = -1
        best = cosines.argmax(axis=0)
        return [
            int(recent[row]) if cosines[row, place] > self._close else None
            for place, row in enumerate(best.tolist())
        ]

    def pick(self, item: int, plays: int) -> str:
        """Of a track for which nothing else speaks."""
        if plays:
            read = min(plays, self._max_length)
            return f"picked by the model from your last {f'{read} plays' if read > 1 else 'play'}"
        count = int(self.catalogue.play_counts[item - 1])
        if count < FEWEST:
            return "hardly anybody has played it yet"
        return f"played {count:,} times by all listeners"


@dataclass
class _Found:
    """What was found for the tracks of one answer, all at once where that is cheaper."""

    model: Reasons
    items: Ints
    grounds: Grounds
    plays: Ints = field(init=False)
    newest: Ints = field(init=False)
    after: list[tuple[int, int] | None] = field(init=False)
    nearest: list[int | None] = field(init=False)

    def __post_init__(self) -> None:
        listening = self.grounds.listening
        kept = (listening.skipped != 1).nonzero()[0]
        played = listening.items[kept]
        is_played = played[:, None] == self.items
        self.plays = is_played.sum(axis=0)
        # Of no play at all it means nothing, and is not asked for.
        self.newest = (
            kept[len(kept) - 1 - is_played[::-1].argmax(axis=0)] if len(kept) else self.plays
        )
        wanted = (item for item in played[::-1].tolist() if item not in listening.disliked)
        recent = np.array([*islice(dict.fromkeys(wanted), RECENT)], np.int64)
        self.after = self.model.after(recent, self.items)
        self.nearest = self.model.nearest(recent, self.items)

    def reasons(self, place: int, track: Chosen) -> tuple[str, ...]:
        listening = self.grounds.listening
        found = dict.fromkeys(islice(self._all(place, track), MOST))
        return tuple(found) or (self.model.pick(track.item, len(listening)),)

    def _all(self, place: int, track: Chosen) -> Iterator[str]:
        # Popularity is a reason of what it brought in, and of nothing else.
        sources: list[Source] = [*track.sources, "repeat", "graph", "sasrec"]
        for source in dict.fromkeys(sources):
            if source == "explore":
                yield "drawn by chance, to find out whether you like it"
            elif source == "repeat":
                yield from self._own(place, track.item)
            elif source == "graph":
                yield from self._interest(place, track.item)
            elif source == "sasrec":
                yield from self._model(place)
            else:
                yield from self._popular(place)

    def _own(self, place: int, item: int) -> Iterator[str]:
        listening = self.grounds.listening
        if item in listening.liked:
            yield "you liked it"
        count = int(self.plays[place])
        if not count:
            return
        times = "once" if count == 1 else f"{count} times"
        if len(listening) >= KEPT_PLAYS:
            times += f" in your last {KEPT_PLAYS} plays"
        newest = None if listening.times is None else int(listening.times[self.newest[place]])
        # A play of the very moment was named by the request, which does not say of what day it is.
        if newest is None or newest >= self.grounds.at:
            yield f"you played it {times}"
        else:
            yield f"you played it {times}, {'on' if count == 1 else 'last on'} {_day(newest)}"

    def _interest(self, place: int, item: int) -> Iterator[str]:
        # Of a track that was played, its plays say more, and the graph cites an older count.
        interests = self.grounds.interests
        if interests is not None and not self.plays[place] and (why := interests.reason(item)):
            yield why

    def _model(self, place: int) -> Iterator[str]:
        named = self.model.catalogue.named
        if follows := self.after[place]:
            item, times = follows
            yield f"often played right after {named(item)} ({times:,} times by all listeners)"
        elif (near := self.nearest[place]) is not None:
            yield f"close to {named(near)}, which you played"

    def _popular(self, place: int) -> Iterator[str]:
        week = self.grounds.week
        if week is None or not week.listeners[place] >= FEWEST:  # NaN is not
            return
        end = int(week.ends[place])
        is_now = 0 <= self.grounds.at - end <= _DAY
        when = "this week" if is_now else f"in the week before {_day(end)}"
        yield f"{int(week.listeners[place]):,} listeners played it {when}"


def _day(moment: int) -> str:
    return datetime.fromtimestamp(moment / 1e6, UTC).date().isoformat()


def _directions(rows: Floats) -> Floats:
    lengths: Floats = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)


def _distance_of(table: Floats) -> float:
    """The cosine that ``CLOSE`` of all pairs do not reach; of so many pairs drawn at random."""
    items = len(table) - 1
    if items < 2:
        return 1.0
    draw = np.random.default_rng(0)
    cosines = []
    for _ in range(_PAIRS // _CHUNK):
        one, step = draw.integers(items, size=_CHUNK), draw.integers(1, items, size=_CHUNK)
        other = (one + step) % items  # never the same
        pairs = _directions(table[1 + one]) * _directions(table[1 + other])
        cosines.append(pairs.sum(axis=1))
    return float(np.quantile(np.concatenate(cosines), CLOSE))
