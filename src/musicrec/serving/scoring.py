"""SASRec over the whole catalogue for whoever waits, in one thread of its own.

A request that scores alone reads the whole table of items from memory for one listener; several
that wait at the same time share that. So the thread takes all that wait as one batch, and nobody is
made to wait for a batch to fill.

Axes: ``batch`` listeners; ``items`` = catalogue_size + 1, 0 is padding.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from musicrec.errors import ServingError
from musicrec.models.biases import Biases
from musicrec.models.sasrec import Known, SASRec
from musicrec.serving.candidates import Proposals, Scored, scored
from musicrec.serving.listening import Ints

#: The most that scores of one batch take, in floats, and the most listeners in it.
_BATCH_FLOATS, _BATCH_LISTENERS = 1 << 24, 32

#: Items whose scores are computed at once, of a batch.
_PIECE = 1 << 12

#: More requests than this do not wait for the thread: they would wait for seconds.
MAX_WAITING = 512


class Question(NamedTuple):
    """What to score for one listener.

    Attributes:
        items: ``(plays,)`` item indices, oldest first, at least one; the model reads the newest.
        banned: items never among the best; padding among them.
        proposals: to be scored beside the best.
        num: how many of the best.
    """

    items: Ints
    banned: Ints
    proposals: Proposals
    num: int


class Scoring:
    """A model made ready to score; one thread at a time may ask it.

    Args:
        model: in evaluation mode, on the CPU.
    """

    def __init__(self, model: SASRec) -> None:
        self._model = model
        with torch.inference_mode():
            self._table = model.output_table().detach().contiguous()
        self.max_batch = max(1, min(_BATCH_LISTENERS, _BATCH_FLOATS // len(self._table)))
        self._scores = torch.empty(0)

    @property
    def table(self) -> Tensor:
        """``(items, dim)`` the model's output table, to be read and not kept twice."""
        return self._table

    @torch.inference_mode()
    def answers(self, questions: Sequence[Question]) -> list[Scored]:
        """The best of each, in the order of the questions.

        Args:
            questions: at most ``max_batch``.
        """
        scores = self.scores([question.items for question in questions])
        return [
            scored(row, question.banned, question.proposals, question.num)
            for row, question in zip(scores, questions, strict=True)
        ]

    @torch.inference_mode()
    def scores(self, histories: Sequence[Ints]) -> Tensor:
        """``(batch, items)`` of each history; overwritten by the next call."""
        hidden, biases = self._known(histories)
        # A fresh allocation of this size costs its page faults every time.
        if len(self._scores) < len(histories):
            self._scores = torch.empty(len(histories), len(self._table))
        scores = self._scores[: len(histories)]
        _multiply(hidden, self._table, out=scores)
        if biases is not None:
            scores = biases.add_to(scores)
        scores[:, 0] = float("-inf")
        return scores

    def _known(self, histories: Sequence[Ints]) -> Known:
        """What the model knows after each history, in their order."""
        longest = self._model.max_length
        newest = [items[-longest:] for items in histories]
        lengths = np.array([len(items) for items in newest])
        order = np.argsort(-lengths, kind="stable")  # as ``encode_last`` likes it best
        flat = np.concatenate([newest[place] for place in order])
        known = self._model.encode_last(torch.from_numpy(flat), torch.from_numpy(lengths[order]))
        if len(order) == 1:
            return known
        back = torch.from_numpy(np.argsort(order))
        biases = known.biases and Biases(*(each[back] for each in known.biases))
        return Known(known.hidden[back], biases)


def _multiply(hidden: Tensor, table: Tensor, out: Tensor) -> None:
    """``hidden @ table.T``, of few rows and many items.

    For one row torch is as fast as memory is. For a few, its BLAS (MKL) takes up to three times as
    long as numpy's (OpenBLAS) asked for the transpose, piece by piece so that the way back to rows
    stays in the cache.
    """
    if len(hidden) == 1:
        torch.mm(hidden, table.T, out=out)
        return
    columns, items, scores = hidden.numpy().T, table.numpy(), out.numpy()
    piece = np.empty((_PIECE, len(hidden)), np.float32)
    for start in range(0, len(items), _PIECE):
        rows = items[start : start + _PIECE]
        product = np.dot(rows, columns, out=piece[: len(rows)])
        scores[:, start : start + _PIECE] = product.T


class _Waiting(NamedTuple):
    scoring: Scoring
    question: Question
    future: asyncio.Future[Scored]


class Scorer:
    """The thread that scores for one event loop; it starts with the first question.

    One for a process, whatever models come and go.
    """

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._num_waiting = 0

    async def ask(self, scoring: Scoring, question: Question) -> Scored:
        """The best for one listener, together with whoever else waits.

        Raises:
            ServingError: ``MAX_WAITING`` requests wait already.
        """
        if self._num_waiting >= MAX_WAITING:
            raise ServingError(f"{self._num_waiting} requests wait to be scored already; ask later")
        loop = asyncio.get_running_loop()
        if self._thread is None:
            self._loop = loop
            self._thread = threading.Thread(target=self._work, name="scorer", daemon=True)
            self._thread.start()
        future: asyncio.Future[Scored] = loop.create_future()
        self._num_waiting += 1
        self._queue.put(_Waiting(scoring, question, future))
        try:
            return await future
        finally:
            self._num_waiting -= 1

    def close(self) -> None:
        """Let the thread end once it has answered who waits."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def _work(self) -> None:
        # One thread a worker: two that compute on one core wait for each other at every product.
        torch.set_num_threads(1)
        held: _Waiting | None = None
        while True:
            first = self._queue.get() if held is None else held
            if first is None:
                return
            batch, held, ends = self._batch(first)
            self._answer(first.scoring, batch)
            if ends:
                return

    def _batch(self, first: _Waiting) -> tuple[list[_Waiting], _Waiting | None, bool]:
        """Who waits for the same model, the first of those who do not, and whether to end."""
        batch = [first]
        while len(batch) < first.scoring.max_batch:
            try:
                waiting = self._queue.get_nowait()
            except queue.Empty:
                break
            if waiting is None:
                return batch, None, True
            if waiting.scoring is not first.scoring:  # the model was swapped just now
                return batch, waiting, False
            batch.append(waiting)
        return batch, None, False

    def _answer(self, scoring: Scoring, batch: list[_Waiting]) -> None:
        assert self._loop is not None
        wanted = [waiting for waiting in batch if not waiting.future.cancelled()]
        if not wanted:
            return
        try:
            answers = scoring.answers([waiting.question for waiting in wanted])
        except Exception as error:  # the thread must live on; who asked gets to know
            for waiting in wanted:
                self._loop.call_soon_threadsafe(_fail, waiting.future, error)
            return
        self._loop.call_soon_threadsafe(_hand_out, wanted, answers)


def _hand_out(batch: list[_Waiting], answers: list[Scored]) -> None:
    for waiting, answer in zip(batch, answers, strict=True):
        if not waiting.future.done():
            waiting.future.set_result(answer)


def _fail(future: asyncio.Future[Scored], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
