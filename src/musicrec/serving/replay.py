"""The service's two stages before plays of the past, to learn a ranker from and to judge it by.

The functions are those of a live answer (``pipeline``); evidence is what was known then: plays,
likes and graphs from Postgres (``past``), features by their point-in-time join, and what was
popular from the same computed windows.

Axes: ``rows`` are candidates of all questions, one question after the other; ``columns`` are
``ranking.COLUMNS``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from musicrec.database.engine import Dataset
from musicrec.features.compute import DAY, window_end
from musicrec.features.context import Context
from musicrec.features.history import point_in_time
from musicrec.interactions.catalogue import Catalogue
from musicrec.metrics.ranking import NEVER, target_rank
from musicrec.serving.candidates import (
    ASKED_NEIGHBOURS,
    Candidates,
    Proposals,
    banned_of,
    proposals_of,
    scored,
)
from musicrec.serving.listening import Ints
from musicrec.serving.moment import Moment, moment_of
from musicrec.serving.past import Past, PastListening, Target
from musicrec.serving.pipeline import Pipeline
from musicrec.serving.ranking import COLUMNS, STORE_COLUMNS, ranking_features
from musicrec.serving.scoring import Scoring

Floats = NDArray[np.float32]

#: Questions whose features are joined at once, neighbours in time.
AT_ONCE = 500

#: How many tracks an answer is taken to have: the default of the service.
K = 10

_NOTHING = np.empty(0, np.int64)


class Ranks(NamedTuple):
    """Where a target stands without a ranker, 1 the best; ties count against it.

    Attributes:
        sasrec: among all tracks, by the protocol of the model's own judgement.
        unranked: the same less what the service bans, such as what was just skipped: where a
            service without a ranker has it.
        behind: where it is if it is no candidate: behind them all, in SASRec's order.
    """

    sasrec: int
    unranked: int
    behind: int


class Asked(NamedTuple):
    """A question with its candidates, before its features are known."""

    past: Past
    moment: Moment
    candidates: Candidates
    ranks: Ranks


class Question(NamedTuple):
    """A target and all that a ranker sees before it."""

    target: Target
    candidates: Candidates
    features: Floats
    """``(candidates, columns)``."""
    place: int
    """Of the target among the candidates; -1 where it is none."""
    ranks: Ranks
    is_repeat: bool

    def rank(self, scores: NDArray[np.floating]) -> int:
        """The target's by some scores of the candidates; ties count against it."""
        if self.place < 0:
            return self.ranks.behind
        return int((scores >= scores[self.place]).sum())


@dataclass(frozen=True)
class Replay:
    """Asks the two stages before plays of the past.

    Attributes:
        dataset: whose features are computed for every day that is asked about.
        catalogue, scoring, seen: of the bundle.
        pipeline: how many candidates there are; its ranker is not asked.
        past: reads what was known.
        log_plays: as ``ranking_features`` needs it.
    """

    dataset: Dataset
    catalogue: Catalogue
    scoring: Scoring
    seen: str
    pipeline: Pipeline
    past: PastListening
    log_plays: Floats

    def questions(
        self, targets: Sequence[Target], on_done: Callable[[int], None] = lambda num: None
    ) -> Iterator[Question]:
        """One for each target that has a history, by rising time.

        Args:
            targets: any; those of listeners without a play before them are left out.
            on_done: told how many more are done.

        Raises:
            FeatureError: a day's features were not computed.
            DatabaseError: the server cannot be reached, or is lost.
        """
        ordered = sorted(targets, key=lambda target: target.at)
        for start in range(0, len(ordered), AT_ONCE):
            some = ordered[start : start + AT_ONCE]
            pasts = self.past.before(some, all_heard=self.seen == "drop")
            asked = list(self._asked([past for past in pasts if len(past.listening)]))
            yield from self._with_features(asked)
            on_done(len(some))

    def _asked(self, pasts: Sequence[Past]) -> Iterator[Asked]:
        size = self.scoring.max_batch
        for start in range(0, len(pasts), size):
            some = pasts[start : start + size]
            scores = self.scoring.scores([past.listening.items for past in some])
            for past, row in zip(some, scores, strict=True):
                yield self._candidates(past, row)

    @torch.inference_mode()
    def _candidates(self, past: Past, row: torch.Tensor) -> Asked:
        listening, target = past.listening, past.target.item
        moment = moment_of(listening, past.as_of, Context())
        if self.seen == "drop":
            row[torch.from_numpy(listening.heard)] = float("-inf")
        alone = int(target_rank(row[None], torch.tensor([target])))
        banned = banned_of(listening, moment, seen=self.seen)
        proposals = self._proposals(past, banned)
        answer = scored(row, banned, proposals, self.pipeline.num_best(K))
        candidates = self.pipeline.candidates(answer, proposals, K)
        unranked = behind = int(target_rank(row[None], torch.tensor([target])))
        if unranked != NEVER:
            behind += int((candidates.scores < row[target].item()).sum())
        return Asked(past, moment, candidates, Ranks(alone, unranked, behind))

    def _proposals(self, past: Past, banned: Ints) -> Proposals:
        interests = past.interests
        return proposals_of(
            past.listening,
            banned,
            seen=self.seen,
            popular=self.past.popular(end_before(past.as_of), self.catalogue.play_counts),
            neighbours=_NOTHING if interests is None else interests.neighbours(ASKED_NEIGHBOURS),
        )

    def _with_features(self, asked: Sequence[Asked]) -> Iterator[Question]:
        store = self._store(asked)
        start = 0
        for past, moment, candidates, ranks in asked:
            items = candidates.items
            features = ranking_features(
                candidates,
                past.listening,
                moment,
                log_plays=self.log_plays,
                store=store[start : start + len(items)],
                affinity=None if past.interests is None else past.interests.affinity(items),
            )
            start += len(items)
            found = np.flatnonzero(items == past.target.item)
            place = int(found[0]) if len(found) else -1
            yield Question(past.target, candidates, features, place, ranks, past.is_repeat)

    def _store(self, asked: Sequence[Asked]) -> Floats:
        """``(rows, len(STORE_COLUMNS))`` as they were known just before."""
        import polars as pl

        items = np.concatenate([each.candidates.items for each in asked] or [_NOTHING])
        sizes = [len(each.candidates.items) for each in asked]
        owners = np.repeat(np.arange(len(asked)), sizes)
        moments = [each.moment for each in asked]
        sessions = [None if m.session is None else len(m.session) for m in moments]
        in_session = [each.moment.in_session(each.candidates.items) for each in asked]
        rows = pl.DataFrame(
            {
                "user_id": [each.past.target.user_id for each in asked],
                "occurred_at": np.array([m.at for m in moments], "datetime64[us]"),
                "hour": [m.hour for m in moments],
                "weekday": [m.weekday for m in moments],
                "device": [m.device for m in moments],
                "session_plays": sessions,
            },
            schema_overrides={"device": pl.String, "session_plays": pl.Int64},
        )
        rows = rows.with_columns(pl.col("occurred_at").dt.replace_time_zone("UTC"))[owners]
        rows = rows.with_columns(
            pl.Series("track_id", [self.catalogue.track_id(item) for item in items.tolist()]),
            pl.Series("in_session", np.concatenate([*in_session, _NOTHING]).astype(np.int64)),
        )
        joined = point_in_time(self.dataset, rows).select(STORE_COLUMNS)
        return joined.to_numpy().astype(np.float32)


def end_before(moment: datetime) -> datetime:
    """The end of the newest daily window whose rows were known just before a moment."""
    return window_end(moment - timedelta(microseconds=1), DAY)


def stacked(questions: Sequence[Question]) -> tuple[Floats, NDArray[np.int64]]:
    """All features, and how many rows each question has.

    Returns:
        ``(rows, columns)`` and ``(questions,)``.
    """
    sizes = np.array([len(question.features) for question in questions], np.int64)
    if not len(questions):
        return np.empty((0, len(COLUMNS)), np.float32), sizes
    return np.concatenate([question.features for question in questions]), sizes
