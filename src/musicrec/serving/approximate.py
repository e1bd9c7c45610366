"""SASRec's best by an index instead of the whole catalogue, where that is large.

An inverted file (faiss): the items' vectors lie in about ``4 * sqrt(items)`` cells, and a listener
is compared with the items of the ``PROBED`` share of cells that are nearest. What is found is
scored exactly, by the same product and the same biases, and so is what no vector tells of: items
with a bias (repeats and transitions), and the proposals. So scores are the exact ones, and all that
an index can do wrong is to miss an item; docs/serving.md has how many it misses.

Axes: ``items`` = catalogue_size + 1, 0 is padding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from musicrec.errors import ServingError
from musicrec.models.sasrec import SASRec
from musicrec.serving.candidates import Scored
from musicrec.serving.listening import Ints
from musicrec.serving.scoring import Question, Scoring

#: Share of the cells that a listener is compared with: more find more and take longer.
PROBED = 1 / 8

#: Vectors that the cells' centres are computed from, of each; faiss advises 39 and more.
_SAMPLE_PER_CELL = 64


class ApproximateScoring(Scoring):
    """A model made ready to score, with an index.

    Args:
        model: in evaluation mode, on the CPU.
        probed: share of the cells to look into.
        threads: to build the index with.

    Raises:
        ServingError: faiss is not installed.
    """

    def __init__(self, model: SASRec, *, probed: float = PROBED, threads: int = 1) -> None:
        super().__init__(model)
        try:
            import faiss
        except ImportError as error:
            raise ServingError(
                f"no index without faiss ({error}); install musicrec[ann], or leave out "
                "approximate_above"
            ) from error
        self._faiss = faiss
        self._items: NDArray[np.float32] = self._table.numpy()
        self._index = _built(faiss, self._items[1:], threads)
        self.num_probed = max(1, round(self._index.nlist * probed))
        self.max_batch = min(self.max_batch, 8)  # nothing is shared: each looks into its own cells

    @torch.inference_mode()
    def answers(self, questions: Sequence[Question]) -> list[Scored]:
        """As ``Scoring.answers``; of the best, some may be missing."""
        hidden, biases = self._known([question.items for question in questions])
        queries = hidden.numpy()
        return [
            self._answer(
                queries[row],
                question,
                np.empty(0, np.int64) if biases is None else biases.items[row].numpy(),
                np.empty(0, np.float32) if biases is None else biases.values[row].numpy(),
            )
            for row, question in enumerate(questions)
        ]

    def _answer(
        self,
        query: NDArray[np.float32],
        question: Question,
        biased: Ints,
        biases: NDArray[np.float32],
    ) -> Scored:
        proposed = question.proposals.items
        found = self._found(query, question.num, question.banned)
        items = np.unique(np.concatenate([found, biased, proposed]))
        scores = self._items[items] @ query
        # An item named more than once gets the sum, as everywhere.
        scores += np.bincount(np.searchsorted(items, biased), biases, minlength=len(items)).astype(
            np.float32
        )
        proposed_scores = scores[np.searchsorted(items, proposed)]
        scores[np.isin(items, question.banned)] = -np.inf
        order = np.lexsort((items, -scores))[: question.num]
        order = order[scores[order] != -np.inf]
        return Scored(items[order], scores[order], proposed_scores)

    def _found(self, query: NDArray[np.float32], num: int, banned: Ints) -> Ints:
        """``num`` items near the query, none of them banned; fewer if its cells have no more."""
        faiss = self._faiss
        # The selector works by reference: both must outlive the search.
        ids = np.ascontiguousarray(banned)
        listed = faiss.IDSelectorBatch(len(ids), faiss.swig_ptr(ids))
        parameters = faiss.SearchParametersIVF(
            nprobe=self.num_probed, sel=faiss.IDSelectorNot(listed)
        )
        _, found = self._index.search(query[None], num, params=parameters)
        items: Ints = found[0]
        return items[items > 0]  # -1: there are no more


def scoring_of(model: SASRec, approximate_above: int | None) -> Scoring:
    """A model made ready: with an index where it has more tracks than ``approximate_above``."""
    if approximate_above is not None and model.catalogue_size > approximate_above:
        return ApproximateScoring(model)
    return Scoring(model)


def _built(faiss: Any, vectors: NDArray[np.float32], threads: int) -> Any:
    """An index of the items 1, 2, … of these vectors; the same for the same vectors."""
    dim = vectors.shape[1]
    num_cells = max(1, round(4 * math.sqrt(len(vectors))))
    num_cells = max(1, min(num_cells, len(vectors) // _SAMPLE_PER_CELL))
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(threads)
    try:
        centres = faiss.IndexFlatIP(dim)
        index = faiss.IndexIVFFlat(centres, dim, num_cells, faiss.METRIC_INNER_PRODUCT)
        index.cp.niter = 10  # more find no more, and a model waits for them at every swap
        index.cp.max_points_per_centroid = _SAMPLE_PER_CELL
        index.cp.min_points_per_centroid = 1  # no warning on standard output of a service
        index.cp.seed = 17
        index.train(vectors)
        index.add_with_ids(vectors, np.arange(1, len(vectors) + 1, dtype=np.int64))
    finally:
        faiss.omp_set_num_threads(before)
    return index
