"""Recommendations for many listeners at once, made by the service's own functions.

What the service reads for a request is at hand here, and nobody waits for it: listeners are scored
in full batches, and a part that does not answer ends the run instead of making a worse answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from musicrec.errors import FeatureError, GraphError, ServingError
from musicrec.features.context import Context
from musicrec.features.online import OnlineStore
from musicrec.serving.candidates import (
    ASKED_NEIGHBOURS,
    Candidates,
    Proposals,
    Scored,
    banned_of,
    proposals_of,
)
from musicrec.serving.continued import continued
from musicrec.serving.engine import Engine
from musicrec.serving.interests import Interests
from musicrec.serving.keeping import Recommended
from musicrec.serving.listeners import Listener
from musicrec.serving.listening import Ints, Listening
from musicrec.serving.moment import Moment, microseconds, moment_of
from musicrec.serving.pipeline import Chosen, from_popularity
from musicrec.serving.ranking import ranking_features
from musicrec.serving.scoring import Question
from musicrec.serving.track_keys import TrackKeys

_NOTHING = np.empty(0, np.int64)
_NO_PROPOSALS = Proposals(_NOTHING, np.empty(0, np.uint8))


class _Asked(NamedTuple):
    """A listener, as the stages see them."""

    user_id: str
    listening: Listening
    moment: Moment
    banned: Ints
    proposals: Proposals
    interests: Interests | None


class Ahead:
    """Recommends as the service would at one moment, in one thread.

    Args:
        engine: surveyed; its ranker is used where ``store`` is given.
        k: tracks for each listener.
        seen: ``keep`` may recommend heard tracks, ``drop`` does not.
        as_of: the moment.
        store: online features for the ranker; None: SASRec's order, as without one.

    Attributes:
        unreadable_graphs: listeners who were answered without their graph, which is damaged.

    Raises:
        ServingError: the tracks of the dataset could not be read.
    """

    def __init__(
        self, engine: Engine, *, k: int, seen: str, as_of: datetime, store: OnlineStore | None
    ) -> None:
        self._engine = engine
        self._k = k
        self._seen = seen
        self._as_of = as_of
        self._store = store
        self._at = microseconds(as_of)
        self._popular = engine.surveyed.popular.at(self._at)
        self._draw = np.random.default_rng(0)  # never drawn from: the engine does not explore
        self.unreadable_graphs = 0
        if engine.surveyed.keys is None:
            raise ServingError(engine.surveyed.problems.get("postgres", "no dataset is open"))
        self._keys: TrackKeys = engine.surveyed.keys

    @property
    def reads_all_heard(self) -> bool:
        """Whether it needs every track that a listener ever played."""
        return self._seen == "drop"

    @property
    def reads_graphs(self) -> bool:
        """Whether it needs the listeners' interest graphs: only a ranker makes anything of them."""
        return self._store is not None

    def recommend(self, listeners: Sequence[Listener]) -> list[Recommended]:
        """What each is recommended, in the order given; all of them are held at once.

        Raises:
            FeatureError: the online store did not answer.
        """
        asked = [self._asked(listener) for listener in listeners]
        chosen = [from_popularity(self._popular, one.banned, self._k) for one in asked]
        # Longest first, so that a batch is of like lengths.
        rows = [row for row, one in enumerate(asked) if len(one.listening)]
        rows.sort(key=lambda row: -len(asked[row].listening))
        size = self._engine.scoring.max_batch
        for start in range(0, len(rows), size):
            some = rows[start : start + size]
            answers = self._engine.scoring.answers([self._question(asked[row]) for row in some])
            for row, scored in zip(some, answers, strict=True):
                chosen[row] = self._chosen(asked[row], scored)
        return [
            Recommended(listener.user_key, listener.user_id, tracks)
            for listener, tracks in zip(listeners, chosen, strict=True)
        ]

    def _asked(self, listener: Listener) -> _Asked:
        plays = listener.stored.listening(self._keys)
        listening = continued(plays, _NOTHING, _NOTHING, self._at)
        moment = moment_of(listening, self._as_of, Context())
        banned = banned_of(listening, moment, seen=self._seen)
        if self._store is None:  # then SASRec's own best are the answer, whatever else is proposed
            return _Asked(listener.user_id, listening, moment, banned, _NO_PROPOSALS, None)
        interests = self._interests(listener)
        proposals = proposals_of(
            listening,
            banned,
            seen=self._seen,
            popular=self._popular,
            neighbours=_NOTHING if interests is None else interests.neighbours(ASKED_NEIGHBOURS),
        )
        return _Asked(listener.user_id, listening, moment, banned, proposals, interests)

    def _interests(self, listener: Listener) -> Interests | None:
        interests_of, graph = self._engine.surveyed.interests, listener.stored.graph
        if interests_of is None or graph is None:
            return None
        try:
            return interests_of.of(listener.user_id, graph, self._as_of)
        except GraphError:
            self.unreadable_graphs += 1
            return None
        finally:
            interests_of.forget(listener.user_id)  # nobody asks for the same one again

    def _question(self, asked: _Asked) -> Question:
        num = self._k if self._store is None else self._engine.pipeline.num_best(self._k)
        return Question(asked.listening.items, asked.banned, asked.proposals, num)

    def _chosen(self, asked: _Asked, scored: Scored) -> list[Chosen]:
        pipeline = self._engine.pipeline
        candidates = pipeline.candidates(scored, asked.proposals, self._k)
        ranked = pipeline.ranked(candidates, self._features(asked, candidates))
        return pipeline.chosen(ranked, self._k, self._draw)

    def _features(self, asked: _Asked, candidates: Candidates) -> NDArray[np.float32] | None:
        ranker = self._engine.pipeline.ranker
        if ranker is None or self._store is None:
            return None
        items = candidates.items
        track_ids = [self._engine.bundle.catalogue.track_id(item) for item in items.tolist()]
        matrix = self._store.read(
            asked.user_id, track_ids, self._context(asked.moment), self._as_of
        )
        if matrix.reason is not None:
            raise FeatureError(
                f"the ranker needs online features: {matrix.reason}; run the command again when "
                "it answers, or say ranker=false for SASRec's order"
            )
        return ranking_features(
            candidates,
            asked.listening,
            asked.moment,
            log_plays=ranker.log_plays,
            store=matrix.values,
            affinity=None if asked.interests is None else asked.interests.affinity(items),
        )

    def _context(self, moment: Moment) -> Context:
        """The moment, as the feature store takes it."""
        session = None
        if moment.session is not None:
            catalogue = self._engine.bundle.catalogue
            session = [catalogue.track_id(item) for item in moment.session.tolist()]
        return Context(moment.hour, moment.weekday, moment.device, session)
