"""How long one listener waits for one answer of a model."""

from __future__ import annotations

from statistics import median
from time import perf_counter

import numpy as np

from musicrec.registry.bundle import Bundle
from musicrec.serving.recommender import Recommender

#: The first ones pay for what the others find warm.
_WARM_UPS, _ANSWERS = 3, 31


def median_latency_ms(bundle: Bundle) -> float:
    """The median of single answers, one after the other, here and now, of full histories."""
    recommender = Recommender(bundle)
    ids, draw = bundle.catalogue.track_ids, np.random.default_rng(0)
    times = []
    for _ in range(_WARM_UPS + _ANSWERS):
        history = [ids[place] for place in draw.integers(len(ids), size=bundle.model.max_length)]
        start = perf_counter()
        recommender.recommend(history, k=10)
        times.append((perf_counter() - start) * 1000)
    return median(times[_WARM_UPS:])
