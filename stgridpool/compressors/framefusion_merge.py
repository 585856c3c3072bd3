"""FrameFusion's merging: tokens that are like the one before them at their place join it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from stgridpool.algorithms.temporal_similarity import chains, cosines_to_previous
from stgridpool.budget import BudgetError, frames_where
from stgridpool.evidence import Evidence
from stgridpool.options import number
from stgridpool.plan import Plan, Shape
from stgridpool.scorer import Budgeted, highest
from stgridpool.video_tokens import VideoTokens


@dataclass(frozen=True)
class FrameFusionMerge(Budgeted):
    """Merge tokens over time: those that are like the token before them at their place join it, in chains.

    Similarity is the cosine with the token before, whatever that one joined. A chain becomes its mean, on the place of
    its first token. The most alike tokens join first, ties in order, until the budget is met. Tokens
    with none before them never join, so that a budget cannot be below their number, a frame's; then the method refuses.

    Source: FrameFusion (ICCV 2025), arXiv 2501.01986, which merges inside the language model; see `FrameFusion`.

    Attributes:
        threshold: In place of a budget, the smallest cosine at which a token joins, -1 to 1. Without a budget it is
            0.6, as published.

    Raises:
        ValueError: If an option is out of its range, or a threshold and a budget are given.
    """

    alternatives: ClassVar[tuple[str, ...]] = ("threshold",)
    default: ClassVar[tuple[str, float]] = ("threshold", 0.6)

    threshold: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threshold is not None:
            object.__setattr__(self, "threshold", number("threshold", self.threshold, -1, 1))

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Join what is alike.

        Raises:
            BudgetError: If fewer tokens have one before them than the budget says must join.
        """
        similarity = cosines_to_previous(tokens)
        if self.threshold is not None:
            return merge_chains(tokens, similarity >= self.threshold)
        count = self.count(tokens)
        least = int((similarity == -torch.inf).sum())
        if count < least:
            raise self._unmet(count, least, len(tokens), tokens.shape if tokens.cell is None else None)
        return merge_chains(tokens, is_most_alike(similarity, len(tokens) - count))

    def planned_count(self, shape: Shape, total: int | None = None) -> int | None:
        """Return the number of tokens left; None if the threshold decides.

        Raises:
            BudgetError: If tokens fill the lattice, and the budget is below one frame.
        """
        count, area, full = super().planned_count(shape, total), math.prod(shape[1:]), math.prod(shape)
        if count is not None and total in (None, full) and count < min(area, full):
            raise self._unmet(count, area, full, shape)
        return count

    def _unmet(self, count: int, least: int, total: int, shape: Shape | None) -> BudgetError:
        """Say that `count` is below the least; with the full lattice, also with how many frames the budget works."""
        text = (
            f"framefusion_merge keeps the first token of every place, {least} of {total}, so that {count} "
            f"cannot be met: ask for at least {least} or choose another method"
        )
        if shape is None:
            return BudgetError(text)
        area = math.prod(shape[1:])
        return BudgetError(
            f"{text}; {frames_where(lambda frames: (self.budget.count((frames, *shape[1:])) or 0) >= area)}"
        )


def is_most_alike(similarity: Tensor, count: int) -> Tensor:
    """Return whether each token is among the `count` most alike (N,), the first of equals first; (N,) bool."""
    joins = torch.zeros_like(similarity, dtype=torch.bool)
    return joins.index_fill(0, highest(similarity, count), True)


def merge_chains(tokens: VideoTokens, joins: Tensor) -> Plan:
    """Return the plan by which tokens that join (N,) bool join the token before them at their place, as means."""
    if not bool(joins.any()):
        return Plan.keep_all(len(tokens), joins.device)
    order, _ = chains(tokens)
    heads = order[~joins[order]]
    head = heads[(~joins[order]).cumsum(0) - 1]  # of every token, in that order
    anchor = (~joins).nonzero().flatten()
    group = torch.empty_like(order).index_copy(0, order, torch.searchsorted(anchor, head))
    return Plan.merge(group, anchor, drops=False)
