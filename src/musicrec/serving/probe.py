"""Whether a model and its ranker answer as they must, before anybody is answered by them."""

from __future__ import annotations

import numpy as np

from musicrec.errors import BundleError
from musicrec.registry.bundle import Bundle
from musicrec.registry.probe import probe as probe_model
from musicrec.serving.ranker import Ranker
from musicrec.serving.ranking import COLUMNS

#: Candidates asked about.
_CANDIDATES = 4


def probe(bundle: Bundle, ranker: Ranker | None) -> None:
    """Ask a model and its ranker about made-up listeners.

    Args:
        bundle: opened, its checksum seen to.
        ranker: that of the bundle, where it is to be used.

    Raises:
        BundleError: there is nothing to recommend, or an answer is not finite or says nothing.
    """
    probe_model(bundle)
    if ranker is not None:
        _probe_ranker(ranker)


def _probe_ranker(ranker: Ranker) -> None:
    # Nothing known, and everything: trees send what is not known down paths of its own.
    for value in (np.nan, 0.0, 1.0):
        features = np.full((_CANDIDATES, len(COLUMNS)), value, np.float32)
        features[:, 0] = np.arange(_CANDIDATES)  # SASRec's score is always known
        scores = ranker.scores(features)
        if scores.shape != (_CANDIDATES,) or not np.isfinite(scores).all():
            raise BundleError(f"its ranker scores with what is not finite (features of {value})")
