"""One pattern laid over every frame: the plans of methods that treat frames alike.

Layouts depend on sizes only. They are made once, on the CPU, and stay on the device where they are used, so that
deciding costs no transfer and nothing waits. What is kept is never changed, and never an inference tensor, since the
next caller may want gradients.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from stgridpool.frames.patterns import FramePattern
from stgridpool.plan import ExtraStep, Grid, Patch, Plan, Rows, to_device

_Value = TypeVar("_Value")


@dataclass(frozen=True, eq=False)
class RewrittenFrames:
    """Frames whose tokens are replaced by extra rows before a pattern is laid over them.

    Attributes:
        frames: the frames replaced, ascending. Frame ``frames[i]`` becomes extra rows i*H*W up to (i + 1)*H*W.
        steps: how the extra rows are made.
    """

    frames: tuple[int, ...]
    steps: tuple[ExtraStep, ...]


NOTHING_REWRITTEN = RewrittenFrames((), ())


@dataclass(frozen=True, eq=False)
class Layout:
    """A pattern laid over every frame of a grid of T frames, F of which are rewritten.

    Attributes:
        plan: the plan with the pattern's own weights.
        kept: (T - F,) int64, the frames drawn from the input.
        rewritten: (F,) int64, the frames drawn from extra rows.
        slots: (T,) int64, which of the rewritten frames each frame is, or -1.
    """

    plan: Plan
    kept: Tensor
    rewritten: Tensor
    slots: Tensor

    def weighted(self, weights: Tensor) -> Plan:
        """The plan with `weights` (T, m) float32 in place of the m of the pattern."""
        if self.plan.patch is None:
            return replace(self.plan, weights=weights.flatten())
        extra = replace(self.plan.patch.rows, weights=weights.index_select(0, self.rewritten).flatten())
        patch = replace(self.plan.patch, rows=extra)
        return replace(self.plan, weights=weights.index_select(0, self.kept).flatten(), patch=patch)


def lay_out(
    pattern: FramePattern, grid: Grid, device: torch.device, rewritten: RewrittenFrames = NOTHING_REWRITTEN
) -> Layout:
    """Lay `pattern` over every frame.

    Args:
        pattern: over the H*W tokens of one frame; m entries.
        grid: (T, H, W) of the source tokens.
        device: where the plan is wanted.
        rewritten: frames to be drawn from extra rows instead.
    """
    return resident(_laid_out(pattern, grid, rewritten), device)


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def resident(value: _Value, device: torch.device) -> _Value:
    """`value`, itself made once per size, with its tensors on `device`, where they stay."""
    moved = to_device(value, device)
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()  # whoever uses it next may be on another stream
    return moved


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _laid_out(pattern: FramePattern, grid: Grid, rewritten: RewrittenFrames) -> Layout:
    shape, area, counts = (grid[0], *pattern.size), grid[1] * grid[2], pattern.offsets.diff()
    frames, order = torch.tensor(rewritten.frames, dtype=torch.int64), torch.arange(len(rewritten.frames))
    slots = torch.full((grid[0],), -1).index_copy(0, frames, order)
    kept = (slots < 0).nonzero().flatten()

    def lay(tables: Tensor, row_counts: Tensor) -> Rows:
        sources = tables[:, None] * area + pattern.sources
        offsets = F.pad(row_counts.flatten().cumsum(0), (1, 0))
        return Rows(sources.flatten(), offsets, pattern.weights.repeat(len(tables)))

    patch = None
    if rewritten.frames:
        targets = frames[:, None] * len(pattern) + torch.arange(len(pattern))
        patch = Patch(targets.flatten(), lay(order, counts.repeat(len(frames))))
    plan = Plan(
        **vars(lay(kept, (slots < 0)[:, None] * counts)),
        place=_lattice(shape),
        grid=grid,
        shape=shape,
        num_extra=len(rewritten.frames) * area,
        steps=rewritten.steps,
        patch=patch,
    )
    return Layout(plan, kept, frames, slots)


def _lattice(shape: Grid) -> Tensor:
    """Frame, row and column of every point of a (T, H, W) lattice, ascending: (T*H*W, 3) int64."""
    return torch.cartesian_prod(*(torch.arange(side) for side in shape))
