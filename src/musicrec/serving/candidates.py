"""From everything that is known of a listener to about a hundred candidates. No I/O in here.

In two steps, because scoring stands between them. ``proposals_of`` says what speaks for itself: the
listener's repeats, what is popular, what suits the interest graph. SASRec scores the catalogue,
keeps its best, and scores the proposals too (``scored``). ``candidates_of`` puts both together.

Items are item indices; 0 is padding and never among them. What is *banned* is recommended by no
source: excluded, disliked, skipped in the running session, and, under ``seen=drop``, heard.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from musicrec.serving.asking import Source
from musicrec.serving.listening import Ints, Listening
from musicrec.serving.moment import Moment

Floats = NDArray[np.float32]

#: The most that each source proposes.
REPEATS, POPULAR, NEIGHBOURS = 20, 10, 20

#: How many neighbours to ask of an interest graph: enough are left where some are banned.
ASKED_NEIGHBOURS = 200

#: SASRec's own best are never fewer than this among the candidates.
LEAST_BEST = 50

#: A play counts half as much for a repeat when so many others have followed it.
REPEAT_HALF_LIFE = 50

#: What each source is in ``Candidates.sources``, in the order in which an answer names them.
SOURCE_BITS: dict[Source, int] = {"sasrec": 1, "repeat": 2, "graph": 4, "popular": 8}

#: Items of a block of ``_highest``, and from how many items on they are worth it.
_BLOCK, _WORTH_BLOCKS = 64, 1 << 15

_NOTHING = np.empty(0, np.int64)


class Proposals(NamedTuple):
    """What is a candidate whatever SASRec says; distinct, none banned."""

    items: Ints
    sources: NDArray[np.uint8]
    """``(items,)`` the sum of the bits of each one's sources."""


class Scored(NamedTuple):
    """What SASRec says to one listener's next track."""

    best: Ints
    """``(n,)`` its best, the best first, equals by index; none banned."""
    best_scores: Floats
    proposed_scores: Floats
    """``(proposals,)`` of ``Proposals.items``."""


class Candidates(NamedTuple):
    """Tracks to choose from, by falling SASRec score, equals by index; distinct, none banned."""

    items: Ints
    scores: Floats
    """``(n,)`` SASRec's."""
    sources: NDArray[np.uint8]

    def sources_of(self, place: int) -> tuple[Source, ...]:
        """What brought one of them in."""
        bits = int(self.sources[place])
        return tuple(source for source, bit in SOURCE_BITS.items() if bits & bit)


def banned_of(
    listening: Listening, moment: Moment, *, exclude: Iterable[int] = (), seen: str
) -> Ints:
    """What must not be recommended to a listener now, padding included; rising."""
    parts = [
        np.array([0, *exclude, *listening.disliked, *moment.skipped], np.int64),
        listening.heard if seen == "drop" else _NOTHING,
    ]
    return np.unique(np.concatenate(parts))


def proposals_of(
    listening: Listening,
    banned: Ints,
    *,
    seen: str,
    popular: Ints = _NOTHING,
    neighbours: Ints = _NOTHING,
) -> Proposals:
    """The candidates that need no score.

    Args:
        listening: of the listener.
        banned: as from ``banned_of``.
        seen: under ``drop`` nobody's repeats are proposed.
        popular: items that many play just now, the most popular first; the first ``POPULAR`` that
            are not banned count.
        neighbours: items that suit the listener's interest graph, the best first; ``NEIGHBOURS``.
    """
    by_source: list[tuple[Source, Ints]] = [
        ("repeat", _NOTHING if seen == "drop" else repeats_of(listening, banned)),
        ("graph", _allowed(neighbours, banned)[:NEIGHBOURS]),
        ("popular", _allowed(popular, banned)[:POPULAR]),
    ]
    return Proposals(*_united([(items, SOURCE_BITS[source]) for source, items in by_source]))


def repeats_of(listening: Listening, banned: Ints) -> Ints:
    """What a listener is most likely to play again by count and recency, the likeliest first.

    Each play counts ``0.5 ** (plays since / REPEAT_HALF_LIFE)``, and a like as much as a play of
    just now. Equals by index.
    """
    liked = np.array(sorted(listening.liked), np.int64)
    plays = len(listening)
    since = np.arange(plays - 1, -1, -1) / REPEAT_HALF_LIFE
    weights = np.concatenate([0.5**since, np.ones(len(liked))])
    items, place = np.unique(np.concatenate([listening.items, liked]), return_inverse=True)
    total = np.bincount(place, weights, minlength=len(items))
    return _allowed(items[np.argsort(-total, kind="stable")], banned)[:REPEATS]


def candidates_of(scored: Scored, proposals: Proposals, num: int, k: int) -> Candidates:
    """The proposals and as many of SASRec's best as make ``num``.

    Args:
        scored: with at least ``num`` of the best, unless the catalogue has no more.
        proposals: those that were scored.
        num: candidates wanted; more come if that many are needed for ``LEAST_BEST`` and ``k``.
        k: how many tracks are to be recommended; that many of SASRec's best are among them.
    """
    is_new = ~np.isin(scored.best, proposals.items)
    # As long as the best and the proposals together are not too many, take one more of the best.
    together = len(proposals.items) + np.cumsum(is_new)
    fits = int(np.searchsorted(together, num, side="right"))
    taken = slice(0, max(fits, LEAST_BEST, k))
    best = scored.best[taken]
    _, sources = _united([(best, SOURCE_BITS["sasrec"]), (proposals.items, proposals.sources)])
    items, first = np.unique(np.concatenate([best, proposals.items]), return_index=True)
    scores = np.concatenate([scored.best_scores[taken], scored.proposed_scores])[first]
    order = np.lexsort((items, -scores))
    return Candidates(items[order], scores[order], sources[order])


def scored(scores: Tensor, banned: Ints, proposals: Proposals, num: int) -> Scored:
    """The exact best of one listener's scores.

    Args:
        scores: ``(items,)`` float32 of the whole catalogue; those of what is banned are altered.
        banned: never among the best.
        proposals: to be scored too.
        num: of the best.
    """
    numbers = scores.numpy()  # the same memory; for a few items torch takes ten times as long
    numbers[banned] = -np.inf
    best, values = best_of(scores, num)
    return Scored(best, values, numbers[proposals.items])


def best_of(scores: Tensor, num: int) -> tuple[Ints, Floats]:
    """The ``num`` highest of ``(items,)`` scores and their items; equals by index, -inf never."""
    found, places = _highest(scores, min(num + 1, len(scores)))
    values, items = found.numpy(), places.numpy()
    if len(values) > num:
        if values[num] == values[num - 1] and values[num] != -np.inf:
            # A tie across the border: torch takes any, and the same question must have one answer.
            numbers = scores.numpy()
            items = np.flatnonzero(numbers >= values[num])
            values = numbers[items]
        else:
            items, values = items[:num], values[:num]
    order = np.lexsort((items, -values))[:num]
    items, values = items[order], values[order]
    if len(values) and values[-1] == -np.inf:
        allowed = values != -np.inf
        return items[allowed], values[allowed]
    return items, values


def _highest(scores: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """The ``num`` highest scores, falling, and their items; of equals at the border, any.

    What is among the ``num`` highest stands in one of the ``num`` blocks with the highest maxima:
    to look for these first is half of ``topk``'s time at 100,000 items and a seventh at a million.
    """
    num_blocks = len(scores) // _BLOCK
    if len(scores) < _WORTH_BLOCKS or num >= num_blocks:
        values, items = scores.topk(num)
        return values, items
    blocks, rest = scores[: num_blocks * _BLOCK].view(-1, _BLOCK), scores[num_blocks * _BLOCK :]
    promising = blocks.amax(1).topk(num, sorted=False).indices
    values, place = torch.cat([blocks[promising].view(-1), rest]).topk(num)
    block = (place // _BLOCK).clamp_(max=num - 1)
    # Those of the rest follow the ``num`` blocks there and all blocks here.
    is_rest = place >= num * _BLOCK
    items = torch.where(
        is_rest, place + (num_blocks - num) * _BLOCK, promising[block] * _BLOCK + place % _BLOCK
    )
    return values, items


def _allowed(items: Ints, banned: Ints) -> Ints:
    return items[~np.isin(items, banned)]


def _united(
    parts: Iterable[tuple[Ints, NDArray[np.uint8] | int]],
) -> tuple[Ints, NDArray[np.uint8]]:
    """All items once, rising, each with all the bits that some part gives it."""
    parts = list(parts)
    items = np.concatenate([each for each, _ in parts])
    bits = np.concatenate([np.broadcast_to(np.uint8(bit), len(each)) for each, bit in parts])
    distinct, place = np.unique(items, return_inverse=True)
    sources = np.zeros(len(distinct), np.uint8)
    np.bitwise_or.at(sources, place, bits)
    return distinct, sources
