"""The mean of neighbouring frames."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from stgridpool.budget import BudgetError, frames_where
from stgridpool.evidence import Evidence
from stgridpool.frames.groups import even_groups, groups_of, pool_over_time
from stgridpool.frames.layout import resident
from stgridpool.frames.patterns import every_token
from stgridpool.options import whole_number
from stgridpool.plan import Plan, Shape
from stgridpool.scorer import Budgeted
from stgridpool.video_tokens import VideoTokens

LARGEST_GROUP = 100_000


@dataclass(frozen=True)
class TemporalAverage(Budgeted):
    """Average runs of frames, place by place: every run becomes one frame, which stands on its first.

    * `group` frames make a run; the last one is shorter if they do not divide T.
    * A budget must be a whole number K of frames, since frames stay whole. Run i then begins at frame
      ``floor(i T / K)``.

    Without any option runs of 4 frames are averaged.

    Attributes:
        group: Frames per run, 1 to 100000; without a budget only.

    Raises:
        ValueError: If an option is out of its range, or a group and a budget are given.
    """

    alternatives: ClassVar[tuple[str, ...]] = ("group",)
    default: ClassVar[tuple[str, float]] = ("group", 4)
    needs_maps: ClassVar[bool] = True

    group: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.group is not None:
            whole_number("group", self.group, 1, LARGEST_GROUP)

    def planned_shape(self, shape: Shape) -> Shape:
        """Return (K, H, W) for K runs.

        Raises:
            BudgetError: If the budget is not a whole number of frames.
        """
        frames, *sides = shape
        if self.group is not None:
            return -(-frames // self.group), shape[1], shape[2]
        area, count = math.prod(sides), self.budget.count(shape) or 1
        if count % area:
            low = count // area * area
            near = f"tokens={low} or tokens={low + area}" if low else f"tokens={area}"
            raise BudgetError(
                f"temporal_average leaves whole frames of {area} tokens, and a budget of {count} tokens is "
                f"{count / area:.2f} frames; ask for {near}; {self._frames_that_work(shape)}"
            )
        return count // area, shape[1], shape[2]

    def _frames_that_work(self, shape: Shape) -> str:
        area = math.prod(shape[1:])
        return frames_where(lambda frames: (self.budget.count((frames, *shape[1:])) or 1) % area == 0)

    def planned_count(self, shape: Shape, total: int | None = None) -> int | None:
        """Return the tokens of K frames."""
        return math.prod(self.planned_shape(shape))

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Average the tokens at each place over each run."""
        maps, (frames, *_) = tokens.maps(), tokens.shape
        if self.group is None:
            groups = even_groups(frames, self.planned_shape(tokens.shape)[0])
        else:
            groups = groups_of(self.group, frames)
        return resident(pool_over_time(groups, every_token(tokens.shape[1:]), tokens.shape), maps.device)
