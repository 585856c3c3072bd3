"""Compressor: the shape of every method; Budget: how many tokens it may leave."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from stgridpool.options import fraction, whole_number
from stgridpool.plan import Grid, Plan

POSITIONS = ("reassign", "survive", "merge")
"""Where the tokens that are left inside the language model may stand; see `stgridpool.decoder.steps.LLMStage`."""

MOST_TOKENS = 1_000_000_000
"""Largest number of tokens that an option may name."""
_ROUNDING = 1 + 1e-12  # 0.7 of 10780 is 7546, but in floating point 7545.999...; 1/3 of 9 is 3


@dataclass(frozen=True)
class Budget:
    """How many tokens may be left of a grid. At most one field is set; none set leaves it to the method's settings.

    Attributes:
        ratio: fraction of the tokens kept, above 0 and at most 1; the count is rounded down, but is at least 1.
        tokens: tokens kept of the whole grid, 1 to 10^9.
        tokens_per_frame: tokens kept per frame, 1 to 10^9.

    Raises:
        ValueError: if two fields are set, or one is of the wrong type or out of its range.
    """

    ratio: float | None = None
    tokens: int | None = None
    tokens_per_frame: int | None = None

    def __post_init__(self) -> None:
        given = {name: value for name, value in vars(self).items() if value is not None}
        if len(given) > 1:
            raise ValueError(f"a budget is given in one way, got {given}; leave out all but one")
        fraction("ratio", given.get("ratio", 1))
        whole_number("tokens", given.get("tokens", 1), 1, MOST_TOKENS)
        whole_number("tokens_per_frame", given.get("tokens_per_frame", 1), 1, MOST_TOKENS)

    def count(self, grid: Grid) -> int | None:
        """Tokens that may be left of `grid` (T, H, W); None where the method's own settings decide."""
        total = math.prod(grid)
        if self.ratio is not None:
            return max(1, int(self.ratio * total * _ROUNDING))
        if self.tokens is not None:
            return min(self.tokens, total)
        if self.tokens_per_frame is not None:
            return min(self.tokens_per_frame * grid[0], total)
        return None


class Compressed(NamedTuple):
    """What calling a compressor gives."""

    tokens: Tensor
    """(N, D), in the dtype of the input."""
    plan: Plan


@dataclass(frozen=True)
class Compressor(ABC):
    """A method. Its fields are its options, its ``repr`` is the record of a run, and `plan` is what it decides."""

    @property
    def query_aware(self) -> bool:
        """Whether it looks at the question; if so, questions on one video share no prefix."""
        return False

    @property
    def needs(self) -> frozenset[str]:
        """What it asks of the encoder besides the tokens, such as the attention that each token received."""
        return frozenset()

    @property
    def stage(self) -> str | int:
        """Where it acts: ``"before_llm"``, or the number of the decoder layer whose input it compresses."""
        return "before_llm"

    @property
    def budget(self) -> Budget:
        """How many tokens it may leave; empty where its own settings decide."""
        return Budget()

    def llm_options(self) -> dict[str, Any]:
        """Options of `stgridpool.decoder.steps.LLMStage` besides the layer, for a method that acts inside it."""
        return {}

    @abstractmethod
    def plan(self, tokens: Tensor) -> Plan:
        """Decide. `tokens` is (T, H, W, D) of any floating dtype and is not changed.

        Raises:
            ValueError: if `tokens` is not of that shape, or has no token.
        """

    def compress(self, tokens: Tensor) -> Compressed:
        """Decide and apply: the tokens left, (N, D), and the plan that made them."""
        plan = self.plan(tokens)
        return Compressed(plan.apply(tokens), plan)

    def __call__(self, tokens: Tensor) -> Compressed:
        """The same as `compress`."""
        return self.compress(tokens)

    def planned_shape(self, grid: Grid) -> Grid | None:
        """The lattice (T', H', W') that the output fills for a source `grid`; None where the tokens decide."""
        del grid
        return None

    def planned_count(self, grid: Grid) -> int | None:
        """Tokens left of `grid` (T, H, W), known before any token exists; None where the tokens decide."""
        shape = self.planned_shape(grid)
        return None if shape is None else math.prod(shape)


def check_tokens(tokens: Tensor) -> Grid:
    """The grid (T, H, W) of `tokens` (T, H, W, D).

    Raises:
        ValueError: if there are not four dimensions, if one of them is empty, or if the dtype is not floating.
    """
    if tokens.dim() != 4 or 0 in tokens.shape:
        raise ValueError(f"tokens must be (frames, rows, columns, width), none of them 0, got {tuple(tokens.shape)}")
    if not tokens.is_floating_point():
        raise ValueError(f"tokens must have a floating dtype, got {tokens.dtype}")
    frames, height, width = tokens.shape[:3]
    return frames, height, width
