"""The two stages in one place: what the service does live, and the evaluation point in time.

An answer is made so, each step a pure function; what lies between them is I/O, and whose matter it
is how that is done::

    banned_of, proposals_of           from the listening, the popular tracks, the graph
    scored                            SASRec over the catalogue
    Pipeline.candidates               about a hundred
    ranking_features                  with the feature store's columns
    Pipeline.ranked                   in order; with no ranker or no features, SASRec's
    Pipeline.chosen                   the k, some of them to explore
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from musicrec.errors import ConfigError
from musicrec.serving.asking import Source
from musicrec.serving.candidates import (
    LEAST_BEST,
    Candidates,
    Proposals,
    Scored,
    candidates_of,
)
from musicrec.serving.listening import Ints
from musicrec.serving.ranker import Ranker

MAX_CANDIDATES = 1000
MAX_EXPLORE = 0.5


class Chosen(NamedTuple):
    """One track of an answer, by its item index."""

    item: int
    score: float
    sources: tuple[Source, ...]


class Ranked(NamedTuple):
    """Candidates in order, the best first."""

    candidates: Candidates
    order: Ints
    """``(candidates,)`` their places, the best first."""
    scores: NDArray[np.float64]
    """``(candidates,)`` what they are ordered by, in the order of ``candidates``."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """How the two stages are run.

    Args:
        ranker: orders the candidates; None: SASRec does.
        candidates: how many are looked at, where ``k`` does not ask for more.
        explore: share of the ``k`` places, rounded down, that go to candidates drawn at random
            from below them.

    Raises:
        ConfigError: a setting that makes no sense.
    """

    ranker: Ranker | None = None
    num_candidates: int = 100
    explore: float = 0.0

    def __post_init__(self) -> None:
        if not LEAST_BEST <= self.num_candidates <= MAX_CANDIDATES:
            raise ConfigError(
                f"candidates={self.num_candidates} is not within {LEAST_BEST} to {MAX_CANDIDATES}"
            )
        if not 0 <= self.explore <= MAX_EXPLORE:
            raise ConfigError(f"explore={self.explore} is not within 0 and {MAX_EXPLORE}")

    def num_best(self, k: int) -> int:
        """How many candidates an answer of ``k`` needs, and so how many of SASRec's best."""
        return max(self.num_candidates, 2 * k)

    def candidates(self, scored: Scored, proposals: Proposals, k: int) -> Candidates:
        """The candidates of an answer of ``k``."""
        return candidates_of(scored, proposals, self.num_best(k), k)

    def ranked(self, candidates: Candidates, features: NDArray[np.float32] | None) -> Ranked:
        """The candidates in order; equals by SASRec's score, then by index.

        Args:
            candidates: to be put in order.
            features: of ``ranking_features``; None: SASRec's order, ranker or not.
        """
        if self.ranker is None or features is None or not len(candidates.items):
            places = np.arange(len(candidates.items))  # that order they are in
            return Ranked(candidates, places, candidates.scores.astype(np.float64))
        scores = self.ranker.scores(features)
        order = np.argsort(-scores, kind="stable")  # equals stay in SASRec's order
        return Ranked(candidates, order, scores)

    def chosen(self, ranked: Ranked, k: int, draw: np.random.Generator) -> list[Chosen]:
        """The best ``k``, or as many as there are; the last of them are drawn where it explores.

        Args:
            draw: what is drawn from; not touched where ``explore`` leaves nothing to draw.
        """
        num_drawn = min(floor(self.explore * k), max(0, len(ranked.order) - k))
        top, below = ranked.order[: k - num_drawn], ranked.order[k - num_drawn :]
        chosen = [self._chosen(ranked, place) for place in top.tolist()]
        if num_drawn:
            # Those drawn come in their order: the answer's scores fall to the end.
            places = np.sort(draw.choice(len(below), num_drawn, replace=False))
            for place in below[places].tolist():
                track = self._chosen(ranked, place)
                chosen.append(track._replace(sources=("explore", *track.sources)))
        return chosen

    @staticmethod
    def _chosen(ranked: Ranked, place: int) -> Chosen:
        candidates = ranked.candidates
        return Chosen(
            int(candidates.items[place]),
            float(ranked.scores[place]),
            candidates.sources_of(place),
        )


def from_popularity(popular: Ints, banned: Ints, k: int) -> list[Chosen]:
    """The answer for a listener of whom nothing is known.

    Args:
        popular: items, the most popular first.
        banned: never recommended.
    """
    allowed = popular[~np.isin(popular, banned)][:k]
    return [Chosen(item, 1 / place, ("popular",)) for place, item in enumerate(allowed.tolist(), 1)]
