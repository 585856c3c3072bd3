"""How many rows to work on at a time: on the CPU, fresh memory costs more than the arithmetic."""

from __future__ import annotations

from torch import Tensor

_ENTRIES_ON_CPU, _ENTRIES_ON_GPU = 1 << 18, 1 << 26
"""Features of a block: what stays in a core's cache, or keeps a GPU busy."""


def on_cpu(features: Tensor) -> bool:
    """Return whether features are in the memory of the CPU; every other device is taken for a GPU, also Apple's."""
    return features.device.type == "cpu"


def rows_at_a_time(features: Tensor) -> int:
    """Return how many rows (D,) of `features` (..., D) make a block on their device, at least 1."""
    return max(1, (_ENTRIES_ON_CPU if on_cpu(features) else _ENTRIES_ON_GPU) // features.shape[-1])
