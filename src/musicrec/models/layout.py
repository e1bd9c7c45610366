"""Where the windows of a flat batch lie, and how like ones are padded together for attention.

Everything a token computes alone (embeddings, linear layers, norms, the loss) runs on flat rows,
so no matrix product sees padding. Attention alone looks across a window; it runs in *groups* of
consecutive windows of like length, padded on the right to the longest of the group::

    lengths      4        3      3      1
    rows         a b c d  e f g  h i j  k          a row is a token; windows one after the other

    groups       a b c d        k                  two groups: three windows, then one
                 e f g .
                 h i j .

Padding comes after a window's own tokens, where no causal query of a token looks, so it needs no
mask. More groups mean less padding and more calls of small kernels; ``_MOST_PADDING`` is the trade.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

#: A group closes when padding would cost it more scores (of one head) than this: about what a
#: group's kernel launches cost, and those weigh more where the arithmetic is faster.
_MOST_PADDING = {"cpu": 2**13}
_MOST_PADDING_ELSEWHERE = 2**22

#: A group's scores of one head and one block of queries should fit a core's cache.
_MOST_SCORES = {"cpu": 2**19}


@dataclass(frozen=True, slots=True)
class Group:
    """Consecutive windows that attend together.

    Attributes:
        windows: which windows of the batch.
        rows: which rows of the batch; all of those windows'.
        longest: tokens of the longest window.
        places: ``(rows,)`` int64, where each row lies in ``(windows * longest)``; None if no
            window is shorter than the longest.
    """

    windows: slice
    rows: slice
    longest: int
    places: Tensor | None

    def __len__(self) -> int:
        return self.windows.stop - self.windows.start

    def pad(self, flat: Tensor) -> Tensor:
        """``(tokens, ...)`` of the whole batch to ``(windows, longest, ...)`` of the group.

        Padding is 0 and comes after a window's tokens.
        """
        rows = flat[self.rows]
        if self.places is not None:
            empty = rows.new_zeros(len(self) * self.longest, *rows.shape[1:])
            rows = empty.index_copy(0, self.places, rows)
        return rows.reshape(len(self), self.longest, *rows.shape[1:])

    def unpad(self, padded: Tensor) -> Tensor:
        """``(windows, longest, ...)`` of the group back to its ``(rows, ...)``."""
        rows = padded.reshape(len(self) * self.longest, *padded.shape[2:])
        return rows if self.places is None else rows.index_select(0, self.places)


class Layout:
    """The windows of one flat batch.

    Args:
        lengths: ``(windows,)`` tokens of each, at least 1, in the order of the rows; any order is
            right, longest first makes the least padding. They are read here, so lengths on an
            accelerator make the caller wait for it.
        device: where the rows are; the lengths' own by default.

    Attributes:
        lengths: as given, on the CPU.
        groups: in the order of the rows; together every window once.
        age: ``(tokens,)`` int64, tokens of the same window that come after; 0 is the newest.
        position: ``(tokens,)`` int64, tokens of the same window that come before.
        newest: ``(windows,)`` int64, row of each window's newest token.
    """

    def __init__(self, lengths: Tensor, device: torch.device | str | None = None) -> None:
        target = torch.device(lengths.device if device is None else device)
        self.lengths = lengths.cpu()
        ends = self.lengths.cumsum(0)
        tokens = int(ends[-1]) if len(ends) else 0
        window = torch.repeat_interleave(torch.arange(len(ends)), self.lengths)
        row = torch.arange(tokens)
        spans = _spans(self.lengths.tolist(), target.type)
        longest = torch.tensor([longest for *_, longest in spans], dtype=torch.int64)
        sizes = torch.tensor([past - first for first, past, _ in spans], dtype=torch.int64)
        # Of each window: what its group is padded to, and its number within the group.
        width = longest.repeat_interleave(sizes)
        number = torch.arange(len(ends)) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
        place = (number * width - (ends - self.lengths))[window] + row
        age, position = ends[window] - 1 - row, row - (ends - self.lengths)[window]
        indices = torch.stack([age, position, place]).to(target, non_blocking=True)
        self.age, self.position, place = indices
        self.newest = (ends - 1).to(target, non_blocking=True)
        bounds = [0, *ends.tolist()]
        self.groups = tuple(
            _group(first, past, longest, bounds, place) for first, past, longest in spans
        )


def _group(first: int, past: int, longest: int, bounds: list[int], place: Tensor) -> Group:
    rows = slice(bounds[first], bounds[past])
    is_full = rows.stop - rows.start == (past - first) * longest
    return Group(slice(first, past), rows, longest, None if is_full else place[rows])


def _spans(lengths: Sequence[int], device: str) -> list[tuple[int, int, int]]:
    """First window, the one past the last, and the longest, of each group."""
    most_padding = _MOST_PADDING.get(device, _MOST_PADDING_ELSEWHERE)
    most_scores = _MOST_SCORES.get(device)
    spans: list[tuple[int, int, int]] = []
    first, longest, real = 0, 0, 0
    for window, length in enumerate(lengths):
        wider = max(longest, length)
        scores = (window + 1 - first) * wider**2
        padding = scores - real - length**2
        is_full = padding > most_padding or (most_scores is not None and scores > most_scores)
        if window > first and is_full:
            spans.append((first, window, longest))
            first, longest, real = window, 0, 0
            wider = length
        longest, real = wider, real + length**2
    if len(lengths):
        spans.append((first, len(lengths), longest))
    return spans
