"""Which threshold meets a budget, for methods whose thresholds decide how many tokens are left."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_PROBES = 20


def highest_threshold(count: Callable[[Tensor], Tensor], budget: int, low: Tensor, high: Tensor) -> Tensor:
    """The highest threshold found, by halving the interval, at which at most `budget` tokens are left.

    The count need not be monotone: what is returned was tried, or is `low`. Nothing waits for the device.

    Args:
        count: tokens left, () int64, at a threshold () float32. It is called 20 times, so it should compute no
            similarity, but only decide.
        budget: tokens wanted.
        low: () float32, a threshold at which at most `budget` tokens are left.
        high: () float32, where the interval ends.
    """
    for _ in range(_PROBES):
        middle = (low + high) / 2
        fits = count(middle) <= budget
        low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
    return low
