"""Dropout whose mask is cheap on a CPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

_LEVELS = 2**16


class Dropout(nn.Module):
    """Zeroes entries with ``probability`` while training, and scales the others to keep the mean.

    torch draws one float an entry, which on a CPU costs as much as twenty multiplications. Here
    an entry takes 16 random bits, four to a draw of torch's generator. So on a CPU ``probability``
    is met to the nearest multiple of 2^-16, and the scale is exactly that of what is kept. Other
    devices use torch's own.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.probability:
            return x
        if x.device.type != "cpu":
            return dropout(x, self.probability)
        return x * kept(x.shape, self.probability, x.dtype)

    def extra_repr(self) -> str:
        return f"{self.probability}"


def kept(shape: Sequence[int], probability: float, dtype: torch.dtype) -> Tensor:
    """A mask to multiply with, on the CPU: 0 for what is dropped, else 1 / the share kept.

    Drawn from torch's global generator.
    """
    count = torch.Size(shape).numel()
    # From the lowest int64 on: the default range leaves out the sign bit, and with it half of
    # the values of every fourth entry.
    bits = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
    level = dropped_levels(probability)
    mask = torch.empty(shape, dtype=dtype)
    torch.ge(bits.view(torch.int16)[:count].view(shape), level - _LEVELS // 2, out=mask)
    return mask.mul_(_LEVELS / (_LEVELS - level))


def dropped_levels(probability: float) -> int:
    """How many of the 2^16 values of 16 bits mean "dropped"; never all of them."""
    return min(round(probability * _LEVELS), _LEVELS - 1)
