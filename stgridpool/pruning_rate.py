"""Budgets given as vLLM gives them: the fraction of the tokens to drop."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from stgridpool.options import number
from stgridpool.plan import Shape
from stgridpool.scorer import Budgeted
from stgridpool.video_tokens import VideoTokens


@dataclass(frozen=True)
class RateBudgeted(Budgeted):
    """Options of methods that vLLM offers, too, and whose tokens it counts before it has seen the video.

    `pruning_rate` q leaves ``int(total * (1 - q))`` tokens, in float arithmetic as vLLM computes it, so that 0.9 of 300
    leaves 29, but no fewer than `least`. Other budgets are met exactly, also below that.

    Attributes:
        pruning_rate: Fraction of the tokens to drop, 0 to 1, in place of another budget.

    Raises:
        ValueError: If an option is out of its range, or two budgets are given.
    """

    alternatives: ClassVar[tuple[str, ...]] = ("pruning_rate",)

    pruning_rate: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pruning_rate is not None:
            object.__setattr__(self, "pruning_rate", number("pruning_rate", self.pruning_rate, 0, 1))

    @abstractmethod
    def least(self, shape: Shape) -> int:
        """Return the smallest number of tokens that a pruning rate leaves of a lattice (T, H, W)."""

    def planned_count(self, shape: Shape, total: int | None = None) -> int | None:
        """See `Compressor.planned_count`."""
        if self.pruning_rate is None:
            return super().planned_count(shape, total)
        return self._left(self.pruning_rate, shape, math.prod(shape) if total is None else total)

    def count(self, tokens: VideoTokens) -> int:
        """Return the number of tokens to leave of `tokens`."""
        if self.pruning_rate is None:
            return super().count(tokens)
        return self._left(self.pruning_rate, tokens.shape, len(tokens))

    def _left(self, rate: float, shape: Shape, total: int) -> int:
        return min(max(self.least(shape), int(total * (1.0 - rate))), total)

    def ratio(self, otherwise: float) -> float:
        """Return the fraction to keep that was asked for; `otherwise` if a number of tokens was."""
        if self.pruning_rate is not None:
            return 1.0 - self.pruning_rate
        return otherwise if self.retention is None else self.retention
