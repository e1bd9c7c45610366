"""One bundle made ready to answer: everything that can be done before a request is done here.

Beside the bundle it holds what Postgres and Redis say of the catalogue's tracks (``Surveyed``).
That is read again now and then, and replaced as a whole; a part that could not be read is missing
until then, and requests go without it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from musicrec.database.engine import Dataset
from musicrec.database.redis_address import RedisAddress
from musicrec.errors import DatabaseError, FeatureError
from musicrec.features.held import HeldTracks, read_tracks
from musicrec.registry import bundle as bundles
from musicrec.registry.bundle import Bundle
from musicrec.serving.approximate import scoring_of
from musicrec.serving.listening import Ints
from musicrec.serving.pipeline import Pipeline
from musicrec.serving.popular import Popular
from musicrec.serving.probe import probe
from musicrec.serving.ranker import ranker_of
from musicrec.serving.reasons import Reasons
from musicrec.serving.track_keys import TrackKeys, read_keys

if TYPE_CHECKING:
    from musicrec.interactions.catalogue import Catalogue
    from musicrec.serving.interests import InterestsOf

_LOG = logging.getLogger("musicrec.engine")

#: A refresh beside requests sleeps this many times as long as it works.
_REST = 4.0

#: How long a new engine waits for what is known of its tracks.
_SURVEY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an engine is put into: where it reads of its tracks, and how it answers.

    Attributes:
        dataset: None where the service has none: then histories come with the requests only.
        redis: where the dataset's online features are; None where none are read.
        interests_of: makes interest graphs ready for a dataset's listeners and a catalogue.
        num_candidates, explore: as ``Pipeline`` takes them.
        ranker: use the bundle's ranker, or do not; None: if it won.
        approximate_above: use an index where the catalogue has more tracks; None: never.
    """

    dataset: Dataset | None = None
    redis: RedisAddress | None = None
    interests_of: Callable[[Dataset, Catalogue], InterestsOf] | None = None
    num_candidates: int = 100
    explore: float = 0.0
    ranker: bool | None = None
    approximate_above: int | None = None


@dataclass(frozen=True)
class Surveyed:
    """What is known of a catalogue's tracks, and of their listeners, outside the bundle.

    Attributes:
        keys: of the tracks in Postgres; None where it was not there.
        tracks: their online features; None where Redis was not there.
        popular: what is played most.
        interests: None where there are none, or Postgres was not there.
        problems: why a part is missing, by its name.
    """

    keys: TrackKeys | None
    tracks: HeldTracks | None
    popular: Popular
    interests: InterestsOf | None
    problems: dict[str, str] = field(default_factory=dict)


class Engine:
    """A model that answers; made by ``open_engine``, and shared by all requests of a process.

    Attributes:
        bundle: opened.
        version: of the model, as answers name it.
        scoring: scores the catalogue.
        pipeline: the two stages; ``pipeline.ranker`` is None where SASRec's order stands.
        reasons: says why.
        surveyed: take it once for a request: ``survey`` replaces it.
    """

    def __init__(self, bundle: Bundle, surroundings: Surroundings) -> None:
        self.bundle = bundle
        self.version = bundle.version
        self.scoring = scoring_of(bundle.model, surroundings.approximate_above)
        ranker = ranker_of(bundle, surroundings.ranker)
        self.pipeline = Pipeline(ranker, surroundings.num_candidates, surroundings.explore)
        self.reasons = Reasons(bundle.catalogue, bundle.model, self.scoring.table)
        self._around = surroundings
        self.surveyed = Surveyed(None, None, Popular(bundle.catalogue.play_counts), None)

    @property
    def num_items(self) -> int:
        """Those of the catalogue; padding is not counted."""
        return len(self.bundle.catalogue)

    def survey(self, *, gently: bool = False, stopped: Callable[[], bool] = lambda: False) -> None:
        """Read what is known outside the bundle, as far as it is there; blocks for seconds.

        What could be read before and cannot now stays as it was.

        Args:
            gently: leave most of the time to requests.
            stopped: asked now and then; if so, nothing is replaced.
        """
        before = self.surveyed
        around, catalogue = self._around, self.bundle.catalogue
        problems: dict[str, str] = {}
        keys, tracks, interests = before.keys, before.tracks, before.interests
        if around.dataset is not None:
            try:
                keys = read_keys(around.dataset, catalogue.track_ids, before.keys)
                if around.interests_of is not None and interests is None:
                    interests = around.interests_of(around.dataset, catalogue)
            except DatabaseError as error:
                problems["postgres"] = str(error)
            if around.redis is not None:
                try:
                    tracks = read_tracks(
                        around.dataset.name,
                        catalogue.track_ids,
                        around.redis,
                        rest=_REST if gently else 0.0,
                        stopped=stopped,
                    )
                except (DatabaseError, FeatureError) as error:
                    problems["features"] = str(error)
        if stopped():
            return
        popular = before.popular
        if tracks is not before.tracks:
            popular = Popular(catalogue.play_counts, tracks)
        for part, why in problems.items():
            if before.problems.get(part) != why:
                _LOG.warning("not there", extra={"facts": {"part": part, "why": why}})
        self.surveyed = Surveyed(keys, tracks, popular, interests, problems)

    def indices(self, track_ids: tuple[str, ...] | list[str]) -> tuple[Ints, tuple[str, ...]]:
        """Item indices of the known ids, in their order, and the ids that are not known."""
        known, unknown = self.bundle.catalogue.indices(track_ids)
        return np.array(known, np.int64), tuple(unknown)


def open_engine(path: Path, surroundings: Surroundings) -> Engine:
    """Open a bundle, ask it a few questions, and survey what is known of its tracks.

    Blocks for seconds. A survey that takes longer than ``_SURVEY_SECONDS``, of a server that hangs,
    is not waited for: it goes on beside the engine, which answers without until then.

    Raises:
        BundleError: missing, torn, of another version, or it does not answer as a model must.
        ServingError: its ranker needs what is not installed.
    """
    engine = Engine(bundles.load(path), surroundings)
    probe(engine.bundle, engine.pipeline.ranker)
    surveying: Future[None] = Future()

    def survey() -> None:
        try:
            engine.survey()
        except BaseException as error:
            surveying.set_exception(error)
        else:
            surveying.set_result(None)

    # A daemon: a server that hangs must not keep the process from ending.
    threading.Thread(target=survey, name="survey", daemon=True).start()
    try:
        surveying.result(_SURVEY_SECONDS)
    except TimeoutError:
        if surveying.done():
            raise
        facts = {"model": engine.version, "seconds": _SURVEY_SECONDS}
        _LOG.warning("survey goes on beside", extra={"facts": facts})
    return engine


def made_engine(bundle: Bundle, surroundings: Surroundings) -> Engine:
    """Of a bundle at hand, surveyed however long that takes."""
    engine = Engine(bundle, surroundings)
    engine.survey()
    return engine
