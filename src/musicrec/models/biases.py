"""What is added to the scores of a few items of each token, beside what their embeddings say.

Axes: ``tokens`` (or any rows of a flat batch); ``places``, the items a token has a bias for;
``items`` = catalogue_size + 1.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Biases(NamedTuple):
    """Items of each token and what to add to the score of each.

    An item named more than once gets the sum. Where a token has fewer than the others, the item is
    0 (padding) and its bias means nothing.
    """

    items: Tensor
    """``(tokens, places)`` int64."""
    values: Tensor
    """``(tokens, places)``."""

    def beside(self, others: Biases) -> Biases:
        """Both together, of the same tokens."""
        return Biases(*(torch.cat(each, dim=1) for each in zip(self, others, strict=True)))

    def add_to(self, scores: Tensor) -> Tensor:
        """Added to ``(tokens, items)`` scores, in place."""
        return scores.scatter_add_(1, self.items, self.values.to(scores.dtype))

    def of(self, wanted: Tensor) -> Tensor:
        """``(tokens,)`` what is added to the score of one item of each token."""
        return self.values.masked_fill(self.items != wanted[:, None], 0).sum(dim=1)

    def add_to_some(self, scores: Tensor, items: Tensor) -> Tensor:
        """Added to the scores of some items alone, in place.

        Args:
            scores: ``(tokens, columns)``.
            items: ``(columns,)`` int64, distinct and rising, none of them 0.
        """
        column = torch.searchsorted(items, self.items).clamp_(max=len(items) - 1)
        values = self.values.masked_fill(items[column] != self.items, 0)
        return scores.scatter_add_(1, column, values.to(scores.dtype))
