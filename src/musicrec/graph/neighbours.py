"""The tracks of a whole catalogue that suit a taste best: ``traits`` read from trait to track.

The affinities of all tracks are united in one pass over the tracks that bear what the taste asks
for, trait by trait. Skipping the widest traits by bounds was tried: with many interests the bounds
say nothing, and the pass is a few milliseconds for a million tracks (docs/interest-graph.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from musicrec.graph.affinity import Taste
from musicrec.graph.traits import Ints, Traits


class Bearers:
    """The tracks that bear each trait; made once for a catalogue, and never changed.

    Args:
        traits: of the catalogue.
        plays: ``(tracks,)`` by which tracks that suit equally well are ordered, the most first;
            then by row.
    """

    def __init__(self, traits: Traits, plays: NDArray[Any]) -> None:
        if len(plays) != len(traits):
            raise ValueError(f"{len(plays)} plays are not of {len(traits)} tracks")
        self.traits = traits
        self._plays = np.asarray(plays)
        order = np.argsort(traits.columns, kind="stable")
        owner = np.repeat(np.arange(len(traits), dtype=np.int32), np.diff(traits.starts))
        self._rows = torch.from_numpy(owner[order])
        self._degrees = torch.from_numpy(traits.degrees[order])
        sizes = np.bincount(traits.columns, minlength=len(traits.column))
        self._starts = np.concatenate([[0], sizes.cumsum()])

    @torch.inference_mode()
    def nearest(self, taste: Taste, num: int) -> Ints:
        """``(at most num,)`` rows, the best first.

        The tracks that the taste cites are not among them: they are the evidence, and heard. Nor
        are those of which it says nothing.

        Args:
            taste: of the same traits.
        """
        # Sums of log(1 - agreement), as in Taste.affinity: the lower, the better.
        doubt = torch.zeros(len(self.traits))
        for rows, agreement in self._agreements(taste):
            doubt.index_add_(0, rows, torch.log1p(-agreement))
        doubt[torch.from_numpy(taste.cited)] = 0
        num = min(num, len(doubt))
        if num < 1:
            return np.empty(0, dtype=np.int64)
        worst = doubt.topk(num, largest=False).values[-1].clamp(max=0)
        chosen = ((doubt <= worst) & (doubt < 0)).nonzero()[:, 0]
        suits: Ints = chosen.numpy()
        order = np.lexsort((suits, -self._plays[suits], doubt[chosen].numpy()))
        return suits[order[:num]]

    def _agreements(self, taste: Taste) -> Iterator[tuple[Tensor, Tensor]]:
        """Of each trait that counts, the rows that bear it and how much it speaks for each."""
        for column, strength in zip(taste.columns.tolist(), taste.strengths.tolist(), strict=True):
            span = slice(self._starts[column], self._starts[column + 1])
            yield self._rows[span], self._degrees[span] * strength
