"""Tracks that the model holds for alike: neighbours of an embedding by direction."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[np.int64]


class Neighbours:
    """Finds the items whose embeddings point where another's does.

    Args:
        table: ``(catalogue_size + 1, dim)`` item embeddings; kept as it is, not copied. Row 0 is
            padding.
    """

    def __init__(self, table: Tensor) -> None:
        self._table = table
        # An item that was never trained may have no direction; it is near nothing, not near all.
        lengths = table.norm(dim=1)
        self._inverse = torch.where(lengths > 0, 1 / lengths, 0.0)

    @torch.inference_mode()
    def of(self, item: int, num: int) -> tuple[Ints, NDArray[np.float32]]:
        """The nearest other items.

        Returns:
            ``(at most num,)`` item indices and their cosines, the greatest first; of equal ones
            the smaller index.
        """
        cosines = (self._table @ self._table[item]) * (self._inverse * self._inverse[item])
        cosines[0] = cosines[item] = -2.0
        num = min(num, len(cosines) - 2)
        if num < 1:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        least = cosines.topk(num).values[-1]
        items = torch.nonzero(cosines >= least)[:, 0]  # by index, all that tie for the last place
        order = cosines[items].argsort(descending=True, stable=True)[:num]
        near = items[order]
        return near.numpy(), cosines[near].clamp(-1, 1).numpy()
