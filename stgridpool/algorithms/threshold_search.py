"""Search for the threshold that meets a budget, for methods in which thresholds decide how many tokens remain."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def highest_threshold(
    count: Callable[[Tensor], Tensor], budget: int, low: Tensor, high: Tensor, probes: int = 20
) -> Tensor:
    """Find, by bisection, the highest threshold at which at most `budget` tokens remain.

    The count need not be monotone: the result is a threshold that was tried, or `low`. Nothing waits for the device.

    Args:
        count: Returns the number of tokens, () int64, that remain at a threshold () float32. It is called once for each
            probe, so it should not compute similarities, only compare them.
        budget: Largest number of tokens allowed.
        low: () float32, a threshold at which at most `budget` tokens remain; the lower end of the interval.
        high: () float32, the upper end of the interval.
        probes: How many thresholds are tried.
    """
    for _ in range(probes):
        middle = (low + high) / 2
        fits = count(middle) <= budget
        low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
    return low


def counted_once(count: Callable[[Tensor], Tensor], *passing: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return `count`, which then counts only once at all thresholds that the same similarities pass.

    The thresholds of a search soon lie between two similarities. Waits for the device.

    Args:
        count: See `highest_threshold`.
        passing: Functions of a threshold that return how many similarities pass it, () int64. As the similarities do
            not change, equally many are the same ones.
    """
    known: dict[tuple[int, ...], Tensor] = {}

    def counted(threshold: Tensor) -> Tensor:
        passed = tuple(int(number(threshold)) for number in passing)
        if passed not in known:
            known[passed] = count(threshold)
        return known[passed]

    return counted
