"""SlowFast-LLaVA: a few frames in detail, followed by all frames in outline."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from stgridpool.compressor import Compressor
from stgridpool.evidence import Evidence
from stgridpool.frames.groups import groups_of
from stgridpool.frames.layout import lay_out, resident
from stgridpool.frames.patterns import FramePattern, resizing
from stgridpool.options import LONGEST_SIDE, Pair, choice, pair, whole_number
from stgridpool.plan import Plan, Shape
from stgridpool.video_tokens import VideoTokens

MOST_FRAMES = 100_000


@dataclass(frozen=True)
class SlowFast(Compressor):
    """Put two pathways one after the other: few frames pooled a little, then all frames pooled a lot.

    * Slow: K frames, frame ``floor(i T / K)`` for i from 0, each pooled over runs of `slow_window` tokens in raster
      order; a shorter run may be left at the end of a frame. Runs cross rows if the window does not divide W.
    * Fast: every frame, averaged to `fast_size`, each new token over the old ones that it covers.

    Fewer frames than K are all taken, and sides shorter than `fast_size` stay as they are. Unlike in the source, tokens
    left over at the end of a frame count. The pathways are the method, so there is no budget to meet: their options
    say what remains.

    Source: SlowFast-LLaVA, arXiv 2407.15841; 50 frames of 24 x 24 give 10 * 288 + 50 * 16 tokens.

    Attributes:
        slow_frames: K, 1 to 100000.
        slow_window: Tokens that become one in the slow pathway, 1 to 256.
        slow_pool: "max" takes the largest value of every channel of a run, "average" the mean.
        fast_size: Most rows and columns of a frame in the fast pathway, a number or (rows, columns), 1 to 256.

    Raises:
        ValueError: If an option is out of its range.
    """

    without_budget: ClassVar[str] = (
        "its pathways are the method, and their share depends on the number of frames; "
        "set slow_frames, slow_window and fast_size"
    )

    num_pathways: ClassVar[int] = 2

    slow_frames: int = 10
    slow_window: int = 2
    slow_pool: str = "average"
    fast_size: int | Pair = 4

    def __post_init__(self) -> None:
        whole_number("slow_frames", self.slow_frames, 1, MOST_FRAMES)
        whole_number("slow_window", self.slow_window, 1, LONGEST_SIDE)
        choice("slow_pool", self.slow_pool, ("average", "max"))
        size = pair("fast_size", self.fast_size, 1, LONGEST_SIDE)
        object.__setattr__(self, "fast_size", self.fast_size if isinstance(self.fast_size, int) else size)

    def planned_count(self, shape: Shape, total: int | None = None) -> int | None:
        """Return the tokens of both pathways."""
        del total
        return self._slow_count(shape) + shape[0] * math.prod(self._fast_size(shape))

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Pool the frames of each pathway, and put the pathways one after the other."""
        maps, shape = tokens.maps(), tokens.shape
        fast = resizing(shape[1:], self._fast_size(shape), "area")
        plan = resident(_both(self._slow_frames(shape), _runs(shape[1:], self.slow_window), fast, shape), maps.device)
        return replace(plan, reproduces=self.slow_pool == "average")

    def values(self, features: Tensor, shape: Shape, plan: Plan) -> Tensor:
        """Compute the output where the slow pathway takes the largest values."""
        count, frames = self._slow_count(shape), list(self._slow_frames(shape))
        padding = -math.prod(shape[1:]) % self.slow_window
        rows = F.pad(features.view(shape[0], -1, features.shape[1])[frames], (0, 0, 0, padding), value=-torch.inf)
        slow = rows.unflatten(1, (-1, self.slow_window)).amax(2).flatten(0, 1)
        fast = replace(plan, rows=plan.rows.take(torch.arange(count, len(plan), device=features.device)))
        return torch.cat([slow, replace(fast, reproduces=True).apply(features)])

    def _slow_frames(self, shape: Shape) -> tuple[int, ...]:
        count = min(self.slow_frames, shape[0])
        return tuple(index * shape[0] // count for index in range(count))

    def _slow_count(self, shape: Shape) -> int:
        return len(self._slow_frames(shape)) * -(-math.prod(shape[1:]) // self.slow_window)

    def _fast_size(self, shape: Shape) -> Pair:
        rows, columns = pair("fast_size", self.fast_size, 1, LONGEST_SIDE)
        return min(rows, shape[1]), min(columns, shape[2])


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _runs(frame: Pair, window: int) -> FramePattern:
    """Return the mean over each run of `window` tokens of a frame in raster order; they fill no lattice."""
    runs = groups_of(window, math.prod(frame))
    return FramePattern(runs, (len(runs), 1), runs.offsets[:-1])


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _both(frames: tuple[int, ...], slow: FramePattern, fast: FramePattern, shape: Shape) -> Plan:
    """Lay `slow` over the slow frames and `fast` over all; on the CPU."""
    area, cpu = math.prod(shape[1:]), torch.device("cpu")
    laid = lay_out(slow, (len(frames), *shape[1:]), cpu)
    start = torch.tensor(frames) * area - torch.arange(len(frames)) * area  # from its place among slow frames
    sources = laid.rows.sources + start[laid.rows.sources // area]
    of_slow = replace(
        laid,
        rows=laid.rows.moved(sources),
        num_sources=math.prod(shape),
        anchor=laid.anchor + start[laid.anchor // area],
        shape=None,
    )
    return Plan.concat([of_slow, lay_out(fast, shape, cpu)])
