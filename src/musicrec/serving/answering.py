"""One request on its way to its answer, from what is read live to tracks with reasons.

Whatever part is not there in time is done without, and the answer says so: the rungs of the ladder,
from everything down, are ``full``, ``no_graph``, ``no_features`` (then SASRec's order stands),
``no_postgres`` (the plays are those this process last read, and the request's own) and
``popularity`` (no plays are known at all).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from musicrec.errors import GraphError
from musicrec.serving.asking import Answer, Ask, Degraded, DegradedPart, Rung, Suggestion
from musicrec.serving.candidates import ASKED_NEIGHBOURS, Candidates, banned_of, proposals_of
from musicrec.serving.continued import NOBODY, continued
from musicrec.serving.engine import Engine, Surveyed
from musicrec.serving.interests import Interests
from musicrec.serving.listening import Ints, Listening
from musicrec.serving.live_features import LiveFeatures
from musicrec.serving.moment import Moment, microseconds, moment_of
from musicrec.serving.parts import PartUnavailable
from musicrec.serving.pipeline import Chosen, from_popularity
from musicrec.serving.ranking import ranking_features
from musicrec.serving.reasons import Grounds
from musicrec.serving.recall import Recall
from musicrec.serving.scoring import Question, Scorer
from musicrec.serving.stored import Stored

if TYPE_CHECKING:
    from musicrec.serving.measures import Measures

#: What is missing where the service was started without a dataset.
NO_DATASET = "this service has no dataset, so it knows no listener; start it with dataset=NAME"

_NOTHING = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Means:
    """What answers are made with; shared by all requests of an event loop.

    Attributes:
        recall: knows the listeners; None where there is no dataset.
        features: reads the feature store; None where none is read.
        draw: what exploration draws from.
        measures: are told of features.
    """

    scorer: Scorer
    recall: Recall | None
    features: LiveFeatures | None
    draw: np.random.Generator
    measures: Measures | None


@dataclass(slots=True)
class _Evidence:
    """What an answer rests on."""

    listening: Listening
    moment: Moment
    interests: Interests | None


class Answering:
    """One request on its way to its answer."""

    def __init__(self, means: Means, engine: Engine, ask: Ask) -> None:
        self._means = means
        self._engine = engine
        self._surveyed: Surveyed = engine.surveyed
        self._ask = ask
        self._as_of = ask.as_of or datetime.now(UTC)
        self._at = microseconds(self._as_of)
        self._degraded: list[Degraded] = []
        self._stages: dict[str, float] = {}
        self._since = perf_counter()

    async def answer(self) -> Answer:
        """The answer; asked for once."""
        engine, ask = self._engine, self._ask
        evidence, unknown = await self._evidence()
        excluded, _ = engine.indices(ask.exclude)
        seen = ask.seen or engine.bundle.seen
        banned = banned_of(
            evidence.listening, evidence.moment, exclude=excluded.tolist(), seen=seen
        )
        popular = self._surveyed.popular.at(self._at)
        if len(evidence.listening):
            chosen = await self._chosen(evidence, banned, popular, seen)
        else:
            chosen = from_popularity(popular, banned, ask.k)
        return Answer(
            tracks=self._suggestions(chosen, evidence),
            rung=self._rung(evidence.listening),
            degraded=tuple(self._degraded),
            unknown=unknown,
            model_version=engine.version,
            as_of=self._as_of,
            stages=self._stages,
        )

    async def _evidence(self) -> tuple[_Evidence, tuple[str, ...]]:
        ask, given = self._ask, self._ask.context.session
        history, strange = self._engine.indices(ask.history)
        session, strange_too = self._engine.indices(tuple(given or ()))
        unknown = tuple(dict.fromkeys([*strange, *strange_too]))
        stored = await self._stored() if ask.user_id is not None else None
        keys = self._surveyed.keys
        plays = NOBODY if stored is None or keys is None else stored.listening(keys)
        listening = continued(plays, history, session, self._at, unknown=unknown)
        self._stage("history")
        moment = moment_of(
            listening, self._as_of, ask.context, None if given is None else session.tolist()
        )
        interests = None if stored is None else self._interests(stored)
        self._stage("graph")
        return _Evidence(listening, moment, interests), unknown

    async def _stored(self) -> Stored | None:
        recall, user_id = self._means.recall, self._ask.user_id
        assert user_id is not None
        if recall is None:
            self._without("postgres", NO_DATASET)
            return None
        keys, interests = self._surveyed.keys, self._surveyed.interests
        if keys is None:
            why = self._surveyed.problems.get("postgres", "its tracks were not read yet")
            self._without("postgres", why)
            return None
        seen = self._ask.seen or self._engine.bundle.seen
        graph_known = None if interests is None else interests.remembered(user_id)
        before = self._ask.as_of if keys.is_timed else None
        recalled = await recall.of(
            user_id, before, graph_known=graph_known, all_heard=seen == "drop"
        )
        if recalled.why is not None:
            self._without("postgres", recalled.why)
        elif recalled.stored is None and interests is not None:
            interests.forget(user_id)  # they may have been erased
        return recalled.stored

    def _interests(self, stored: Stored) -> Interests | None:
        """The listener's; None where there is no graph."""
        interests, user_id = self._surveyed.interests, self._ask.user_id
        assert user_id is not None
        if interests is None:
            why = self._surveyed.problems.get("postgres")
            if stored.graph is not None and why is not None:
                self._without("graph", why)
            return None
        if stored.graph is None:
            if not self._lacks("postgres"):
                interests.forget(user_id)
            return None
        try:
            return interests.of(user_id, stored.graph, self._as_of)
        except GraphError as error:
            self._without("graph", str(error))
        except LookupError:  # another listener's took its place while Postgres was asked
            self._without("graph", "it was not remembered any more; ask again")
        return None

    async def _chosen(
        self, evidence: _Evidence, banned: Ints, popular: Ints, seen: str
    ) -> list[Chosen]:
        means, engine, k = self._means, self._engine, self._ask.k
        interests = evidence.interests
        proposals = proposals_of(
            evidence.listening,
            banned,
            seen=seen,
            popular=popular,
            neighbours=_NOTHING if interests is None else interests.neighbours(ASKED_NEIGHBOURS),
        )
        num = engine.pipeline.num_best(k)
        question = Question(evidence.listening.items, banned, proposals, num)
        scored = await means.scorer.ask(engine.scoring, question)
        candidates = engine.pipeline.candidates(scored, proposals, k)
        self._stage("score")
        features = await self._features(candidates, evidence)
        ranked = engine.pipeline.ranked(candidates, features)
        chosen = engine.pipeline.chosen(ranked, k, means.draw)
        self._stage("rank")
        return chosen

    async def _features(
        self, candidates: Candidates, evidence: _Evidence
    ) -> NDArray[np.float32] | None:
        """What the ranker reads; None where there is no ranker, or the store is away."""
        ranker, reader = self._engine.pipeline.ranker, self._means.features
        if ranker is None:
            return None
        tracks = self._surveyed.tracks
        if reader is None or tracks is None:
            why = "this service reads no features; start it with dataset=NAME"
            if reader is not None:
                why = self._surveyed.problems.get("features", "the tracks' were not read yet")
            self._without("features", why)
            return None
        catalogue = self._engine.bundle.catalogue
        try:
            store = await reader.read(
                self._ask.user_id,
                candidates.items,
                catalogue,
                tracks,
                evidence.moment,
                self._as_of,
            )
        except PartUnavailable as unavailable:
            self._without("features", str(unavailable))
            return None
        finally:
            self._stage("features")
        if self._means.measures is not None:
            self._means.measures.features(store.views, store.states, store.ages)
        interests = evidence.interests
        return ranking_features(
            candidates,
            evidence.listening,
            evidence.moment,
            log_plays=ranker.log_plays,
            store=store.values,
            affinity=None if interests is None else interests.affinity(candidates.items),
        )

    def _suggestions(self, chosen: list[Chosen], evidence: _Evidence) -> tuple[Suggestion, ...]:
        catalogue = self._engine.bundle.catalogue
        items = np.array([track.item for track in chosen], np.int64)
        grounds = Grounds(
            evidence.listening,
            self._at,
            evidence.interests,
            self._surveyed.popular.week(items, self._at),
        )
        reasons = self._engine.reasons.of(chosen, grounds)
        suggestions = tuple(
            Suggestion(
                catalogue.track_id(track.item),
                catalogue.titles[track.item - 1],
                catalogue.artists[track.item - 1],
                track.score,
                track.sources,
                why,
            )
            for track, why in zip(chosen, reasons, strict=True)
        )
        self._stage("reasons")
        return suggestions

    def _rung(self, listening: Listening) -> Rung:
        if not len(listening):
            return "popularity"
        if self._lacks("postgres"):
            return "no_postgres"
        if self._lacks("features"):
            return "no_features"
        return "no_graph" if self._lacks("graph") else "full"

    def _lacks(self, part: str) -> bool:
        return any(degraded.part == part for degraded in self._degraded)

    def _without(self, part: DegradedPart, why: str) -> None:
        self._degraded.append(Degraded(part, why))

    def _stage(self, name: str) -> None:
        """What was done since the last stage is called so."""
        now = perf_counter()
        self._stages[name] = (now - self._since) * 1000
        self._since = now
