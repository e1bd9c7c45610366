"""The feature store's columns for one listener's candidates, now.

Rows of the listener and of the listener with each candidate come from Redis; those of the tracks
are held in process (``features.held``), and those of the moment are computed. What comes of it is
what ``OnlineStore`` would have read, column by column.
"""

from __future__ import annotations

from datetime import datetime

import numpy as np

from musicrec.database.redis_address import RedisAddress
from musicrec.errors import FeatureError
from musicrec.features import context, held
from musicrec.features.held import HeldTracks
from musicrec.features.online import AsyncOnlineStore
from musicrec.features.plan import FeatureMatrix, ReadPlan, State
from musicrec.features.views import STORED
from musicrec.interactions.catalogue import Catalogue
from musicrec.serving.breaker import Breaker
from musicrec.serving.listening import Ints
from musicrec.serving.moment import Moment
from musicrec.serving.parts import PartUnavailable
from musicrec.serving.ranking import STORE_COLUMNS

#: Views that are read for each request.
_ASKED = {
    view.name: [feature.name for feature in view.features]
    for view in STORED
    if "user" in view.entities
}
_ASKED_COLUMNS = [f"{view}__{name}" for view, names in _ASKED.items() for name in names]
_VIEWS = tuple(view.name for view in STORED)

# Where the columns and views of each part go in the whole.
_TO_ASKED = [STORE_COLUMNS.index(column) for column in _ASKED_COLUMNS]
_TO_HELD = [STORE_COLUMNS.index(column) for column in held.COLUMNS]
_TO_CONTEXT = [STORE_COLUMNS.index(column) for column in context.COLUMNS]
_VIEWS_ASKED = [_VIEWS.index(view) for view in _ASKED]
_VIEWS_HELD = [_VIEWS.index(view.name) for view in held.VIEWS]
_ENERGIES = [STORE_COLUMNS.index(column) for column in context.STORED_INPUTS]


class LiveFeatures:
    """Reads the features of candidates for one event loop.

    Args:
        project: Feast's: the dataset.
        address: Redis.
        budget_seconds: after which an answer is made without it.
        breaker: leaves Redis alone for a moment where it failed.
    """

    def __init__(
        self, project: str, address: RedisAddress, budget_seconds: float, breaker: Breaker
    ) -> None:
        self._plan = ReadPlan(project, _ASKED)
        self._store = AsyncOnlineStore(self._plan, address, budget_seconds)
        self._breaker = breaker

    async def read(
        self,
        user_id: str | None,
        items: Ints,
        catalogue: Catalogue,
        tracks: HeldTracks,
        moment: Moment,
        as_of: datetime,
    ) -> FeatureMatrix:
        """The features of some candidates, in the columns of ``ranking.STORE_COLUMNS``.

        Args:
            user_id: the listener; None for a stranger, of whom there are none.
            items: the candidates.
            catalogue: of the same items.
            tracks: their rows.
            moment: of the request, at ``as_of``.

        Raises:
            PartUnavailable: Redis did not answer in time, or says what cannot be read.
        """
        values = np.full((len(items), len(STORE_COLUMNS)), np.float32("nan"))
        states = np.full((len(items), len(_VIEWS)), State.MISSING, np.uint8)
        ages = np.full((len(items), len(_VIEWS)), np.float32("nan"))
        if user_id is not None and len(items):
            track_ids = [catalogue.track_id(item) for item in items.tolist()]
            asked = await self._ask(user_id, track_ids, as_of)
            values[:, _TO_ASKED] = asked.values
            states[:, _VIEWS_ASKED], ages[:, _VIEWS_ASKED] = asked.states, asked.ages
        own, states[:, _VIEWS_HELD], ages[:, _VIEWS_HELD] = tracks.at(items, moment.at)
        values[:, _TO_HELD] = own
        energies = (values[:, place] for place in _ENERGIES)
        values[:, _TO_CONTEXT] = moment.context_columns(items, *energies)
        return FeatureMatrix(values, STORE_COLUMNS, _VIEWS, states, ages)

    async def close(self) -> None:
        """Close the connections."""
        await self._store.close()

    async def _ask(self, user_id: str, track_ids: list[str], as_of: datetime) -> FeatureMatrix:
        if not self._breaker.may_ask():
            raise PartUnavailable(f"left alone for a moment: {self._breaker.why}")
        try:
            matrix = await self._store.read(user_id, track_ids, as_of=as_of)
        except FeatureError as error:  # Redis answers: it is one row that cannot be read
            self._breaker.succeeded()
            raise PartUnavailable(str(error)) from error
        if matrix.reason is not None:
            self._breaker.failed(matrix.reason)
            raise PartUnavailable(matrix.reason)
        self._breaker.succeeded()
        return matrix
