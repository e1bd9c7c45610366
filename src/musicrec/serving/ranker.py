"""The second stage: LightGBM's trees put about a hundred candidates in order.

The trees correct SASRec's score rather than replace it: they were grown from it (``base`` times the
score is where they began), so with nothing learnt its order stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from musicrec.errors import BundleError, ServingError
from musicrec.registry.bundle import Bundle, TrainedRanker
from musicrec.serving.ranking import COLUMNS

_SCORE = COLUMNS.index("sasrec__score")


class Ranker:
    """Trees that were read from a bundle, ready to be asked.

    Attributes:
        log_plays: ``(catalogue_size + 1,)`` float32 as ``ranking_features`` needs it.
    """

    def __init__(self, booster: Any, base: float, log_plays: NDArray[np.float32]) -> None:
        self._booster = booster
        self._base = base
        self.log_plays = log_plays

    @classmethod
    def load(cls, trained: TrainedRanker) -> Ranker:
        """Read the trees.

        Raises:
            ServingError: LightGBM is not installed.
            BundleError: the text is no model of LightGBM's, or is one of other columns.
        """
        try:
            import lightgbm
        except ImportError as error:
            raise ServingError(
                f"this bundle has a ranker, and LightGBM is missing ({error}); install "
                "musicrec[serve], or serve without it: ranker=false"
            ) from error
        check_columns(trained.columns)
        try:
            booster = lightgbm.Booster(model_str=trained.text)
        except lightgbm.basic.LightGBMError as error:
            raise BundleError(f"the bundle's ranker cannot be read ({error})") from error
        if booster.num_feature() != len(COLUMNS):
            raise BundleError(
                f"the bundle's ranker reads {booster.num_feature()} columns, not {len(COLUMNS)}; "
                "train it again with scripts/train_ranker.py"
            )
        return cls(booster, trained.base, log_plays_of(trained.plays))

    def scores(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """``(candidates,)`` higher is better; of ``ranking_features``."""
        trees = self._booster.predict(features, num_threads=1)
        scores: NDArray[np.float64] = self._base * features[:, _SCORE].astype(np.float64) + trees
        return scores


def log_plays_of(plays: NDArray[np.int64]) -> NDArray[np.float32]:
    """``(catalogue_size + 1,)`` of ``(catalogue_size,)`` plays; padding has none."""
    return np.log1p(np.concatenate([[0], plays])).astype(np.float32)


def check_columns(columns: Sequence[str]) -> None:
    """Refuse a ranker of other columns than this code makes.

    Raises:
        BundleError: names the first that differs.
    """
    if tuple(columns) != COLUMNS:
        missing = [*(set(columns) - set(COLUMNS)), *(set(COLUMNS) - set(columns))]
        said = f"such as {missing[0]}" if missing else "in another order"
        raise BundleError(
            f"the bundle's ranker was trained on other columns than this code makes ({said}); "
            "train it again with scripts/train_ranker.py"
        )


def ranker_of(bundle: Bundle, wanted: bool | None = None) -> Ranker | None:
    """The ranker that a bundle is to answer with; None where SASRec's order is to stand.

    Args:
        wanted: use it, or do not; None: if it won on validation.

    Raises:
        BundleError: it is wanted, and there is none.
    """
    trained = bundle.ranker
    if wanted is None:
        wanted = trained is not None and trained.is_active
    if not wanted:
        return None
    if trained is None:
        raise BundleError(
            "it has no ranker, and ranker=true wants one; train one with "
            "scripts/train_ranker.py, or leave ranker= out"
        )
    return Ranker.load(trained)
