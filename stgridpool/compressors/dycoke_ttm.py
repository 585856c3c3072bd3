"""DyCoke's token merging over time: later frames of a window keep only what differs from an earlier one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from stgridpool.algorithms.temporal_similarity import cosines_to_earlier
from stgridpool.budget import BudgetError, frames_where, share_equally
from stgridpool.evidence import Evidence
from stgridpool.options import choice, number
from stgridpool.plan import Plan, Shape
from stgridpool.scorer import BUDGETS, Budgeted, highest_per_group
from stgridpool.video_tokens import VideoTokens

COMPARED = (0, 1, 2, 1)
"""How far back the frame stands with which each frame of a window is compared; 0 for none."""
WINDOW = len(COMPARED)
"""Frames of a window."""


@dataclass(frozen=True)
class DyCokeTTM(Budgeted):
    """Keep the first frame of every four, and of the others the tokens that are least like those on their places.

    The second frame of a window is compared with the first, the fourth with the third, and the third with the first,
    all by cosine. Nothing is averaged, whatever the method is called.

    A budget is shared equally by the frames that lose tokens. Since first frames lose none, it cannot be below their
    tokens, about a quarter; then the method refuses.

    Source: DyCoke (CVPR 2025), arXiv 2411.15024, first stage. Presets: the released code leaves the third frame of the
    last window whole, as it does in every window of fewer than four frames, and loses the last frame of an odd number;
    ``released`` does so too. ``sttm``, the code behind the rows of DyCoke's first stage in STTM's tables, also leaves
    that third frame whole, but keeps the last of an odd number. ``corrected``, the default, does neither. Both codes
    return the tokens of a frame in order of similarity; here they stay in raster order.

    Attributes:
        preset: "corrected", "released" or "sttm", see above.
        prune: In place of a budget, fraction K that frames other than the first of a window lose, 0 to 1: of N tokens
            ``int((1 - K) * N)`` are kept. Without a budget it is 0.7, as published.

    Raises:
        ValueError: If an option is out of its range, `prune` and a budget are given, or a preset other than "corrected"
            gets a budget.
    """

    alternatives: ClassVar[tuple[str, ...]] = ("prune",)
    default: ClassVar[tuple[str, float]] = ("prune", 0.7)
    needs_maps: ClassVar[bool] = True
    PRESETS: ClassVar[tuple[str, ...]] = ("corrected", "released", "sttm")

    preset: str = "corrected"
    prune: float | None = None

    def __post_init__(self) -> None:
        choice("preset", self.preset, self.PRESETS)
        super().__post_init__()
        if self.prune is not None:
            object.__setattr__(self, "prune", number("prune", self.prune, 0, 1))
        elif self.preset != "corrected":
            raise ValueError(f"preset={self.preset!r} takes prune in place of a budget, got {self._given(BUDGETS)}")

    def _kept(self, shape: Shape) -> Tensor:
        """Count the tokens to keep of each frame, (T,) int64.

        Raises:
            BudgetError: If the budget is below what first frames hold.
        """
        area = shape[1] * shape[2]
        is_first = torch.arange(shape[0]) % WINDOW == 0
        count = self.budget.count(shape)
        if count is None:
            kept = torch.full((shape[0],), int((1 - (self.prune or 0)) * area)).where(~is_first, area)
            return kept if self.preset == "corrected" else self._as_released(kept, area)
        least = int(is_first.sum()) * area
        if count < least:
            raise BudgetError(
                f"dycoke_ttm keeps the first of every {WINDOW} frames whole, {least} of {math.prod(shape)} tokens, so "
                f"that {count} cannot be met: ask for at least {least} or choose another method; "
                + frames_where(self._is_met(shape))
            )
        sizes = torch.full((shape[0],), area).where(~is_first, 0)
        return share_equally(count - least, sizes).where(~is_first, area)

    def _is_met(self, shape: Shape) -> Callable[[int], bool]:
        """Return whether the budget is enough for a number of frames as large as those of `shape`."""
        area = shape[1] * shape[2]
        return lambda frames: (self.budget.count((frames, *shape[1:])) or 0) >= -(-frames // WINDOW) * area

    def _as_released(self, kept: Tensor, area: int) -> Tensor:
        frames = len(kept)
        kept = kept.clone()
        kept[2::WINDOW][max(0, math.ceil((frames - WINDOW) / WINDOW)) :] = area  # third frames not compared
        if self.preset == "released" and frames % 2 and frames > 1:
            kept[-1] = 0
        return kept

    def planned_count(self, shape: Shape, total: int | None = None) -> int | None:
        """Return the number of tokens left."""
        del total
        return int(self._kept(shape).sum())

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Keep what is least like an earlier frame of the window."""
        maps = tokens.maps().flatten(1, 2)  # (T, N, D)
        frames_back = torch.tensor(COMPARED)[torch.arange(len(maps)) % WINDOW]
        difference = -cosines_to_earlier(maps, frames_back)  # infinite in the first frame of a window
        kept = self._kept(tokens.shape)
        return Plan.keep(highest_per_group(difference.flatten(), tokens.frames(), kept), len(tokens))
