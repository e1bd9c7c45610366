"""The simple recommenders every model must be measured against.

Each is counted from the interactions a question may know, and answers with the same
``(batch, catalogue_size + 1)`` scores as a model, padding at ``-inf``.

Axes: ``batch`` listeners; histories come flat, ``(interactions,)`` items oldest first, listener
after listener, with ``lengths`` ``(batch,)`` of at least 1.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Baseline(Protocol):
    """Scores every item for each history."""

    def scores(self, history: Tensor, lengths: Tensor) -> Tensor:
        """``(batch, catalogue_size + 1)`` float, higher is better."""
        ...


class Popularity:
    """Everyone gets what was played most; one list for all.

    Args:
        items: ``(interactions,)`` int64, the plays that count (the last days, usually).
        catalogue_size: number of items.
    """

    def __init__(self, items: Tensor, catalogue_size: int) -> None:
        self.counts = torch.bincount(items, minlength=catalogue_size + 1).float()
        self.counts[0] = float("-inf")

    def scores(self, history: Tensor, lengths: Tensor) -> Tensor:
        """The same row for every listener; unplayed items tie at 0."""
        return self.counts.expand(len(lengths), -1).clone()


class PersonalTop:
    """What this listener played most, the more recent first among equals; others tie at 0."""

    def __init__(self, catalogue_size: int) -> None:
        self.catalogue_size = catalogue_size

    def scores(self, history: Tensor, lengths: Tensor) -> Tensor:
        """Each heard item's place in the listener's own order, counted from below; else 0."""
        items = self.catalogue_size + 1
        listener = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
        heard, which, plays = torch.unique(
            listener * items + history, return_inverse=True, return_counts=True
        )
        latest = torch.zeros_like(heard)
        latest.scatter_reduce_(0, which, torch.arange(len(history)), reduce="amax")
        order = latest.argsort()
        order = order[plays[order].argsort(stable=True)]
        # Places and not counts plus fractions: small whole numbers are exact in float32.
        scores = torch.zeros(len(lengths) * items)
        scores[heard[order]] = torch.arange(1.0, len(heard) + 1)
        scores = scores.view(len(lengths), items)
        scores[:, 0] = float("-inf")
        return scores


class Markov:
    """First order: what most often came right after the last track, over all listeners.

    Items that never followed it are ordered by how often they follow anything (their popularity),
    below all that did.

    Args:
        before, after: ``(transitions,)`` int64 items played right one after the other.
        catalogue_size: number of items.
    """

    def __init__(self, before: Tensor, after: Tensor, catalogue_size: int) -> None:
        self.catalogue_size = catalogue_size
        items = catalogue_size + 1
        pairs, self.counts = torch.unique(before * items + after, return_counts=True)
        self.successors = pairs % items
        self.offsets = torch.searchsorted(pairs, torch.arange(items + 1) * items)
        # Double: a large count plus a small share must stay distinct, or it ties with its like.
        popularity = torch.bincount(after, minlength=items).double()
        self.fill = popularity / (popularity.sum() + 1)  # below 1, so below any real count
        self.fill[0] = float("-inf")

    def scores(self, history: Tensor, lengths: Tensor) -> Tensor:
        """Number of times an item followed the last one, plus its popularity share."""
        last = history[lengths.cumsum(0) - 1]
        start, end = self.offsets[last], self.offsets[last + 1]
        scores = self.fill.expand(len(lengths), -1).clone()
        for row, (first, past) in enumerate(zip(start.tolist(), end.tolist(), strict=True)):
            scores[row, self.successors[first:past]] += self.counts[first:past]
        return scores
