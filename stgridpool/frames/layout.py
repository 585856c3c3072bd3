"""One pattern laid over every frame: the plans of methods that treat frames alike.

Patterns depend on the size of a frame only. They are made once, on the CPU, and stay on the device where they are used,
so that deciding costs no transfer and nothing waits. What is kept is never changed, and never an inference tensor,
since the next caller may want gradients.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeVar

import torch
from torch import Tensor

from stgridpool.frames.patterns import FramePattern
from stgridpool.plan import Plan, Shape, made_sizes, to_device
from stgridpool.rows import Rows

_Value = TypeVar("_Value")


@dataclass(frozen=True, eq=False)
class RewrittenFrames:
    """Frames whose tokens are replaced by made rows before a pattern is laid over them.

    Attributes:
        made: The rows, level by level, see `Plan.made`; each level makes whole frames of H*W rows.
        slots: (T,) int64, for each frame which of the made frames replaces it, counted through all levels, or -1.
    """

    made: tuple[Rows, ...]
    slots: Tensor


def lay_out(
    pattern: FramePattern, shape: Shape, device: torch.device, rewritten: RewrittenFrames | None = None
) -> Plan:
    """Lay `pattern` over every frame.

    Args:
        pattern: Over the H*W tokens of one frame.
        shape: (T, H, W) of the source tokens.
        device: Where the plan is wanted.
        rewritten: Frames to be drawn from made rows instead.
    """
    if rewritten is not None:
        return resident(_with_mosaics(pattern, shape, rewritten), device)
    return _over_frames(resident(pattern, device), torch.arange(shape[0], device=device), shape, ())


@lru_cache(maxsize=160)  # a plan and its slots for each of 64 lengths, and the patterns
@torch.inference_mode(False)
def resident(value: _Value, device: torch.device) -> _Value:
    """Return `value`, itself made once per size, with its tensors on `device`, where they stay."""
    moved = to_device(value, device)
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()  # whoever uses it next may be on another stream
    return moved


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _with_mosaics(pattern: FramePattern, shape: Shape, rewritten: RewrittenFrames) -> Plan:
    tables = torch.where(rewritten.slots < 0, torch.arange(shape[0]), rewritten.slots + shape[0])
    plan = _over_frames(pattern, tables, shape, rewritten.made)
    return replace(plan, rows=plan.rows.divided(made_sizes(plan.num_sources, rewritten.made)))


@torch.inference_mode(False)
def _over_frames(pattern: FramePattern, tables: Tensor, shape: Shape, made: tuple[Rows, ...]) -> Plan:
    """Lay a pattern over frames; `tables` (T,): which frame of the address space each frame is drawn from."""
    frames, height, width = shape
    area, entries = height * width, pattern.rows.sources.numel()
    order = torch.arange(frames, device=tables.device)
    sources = tables[:, None] * area + pattern.rows.sources
    offsets = (order[:, None] * entries + pattern.rows.offsets[:-1]).flatten()
    rows = Rows(
        sources.flatten(),
        torch.cat([offsets, offsets.new_full((1,), frames * entries)]),
        pattern.rows.weights.repeat(frames),
        selects=pattern.rows.selects,
    )
    anchor = (order[:, None] * area + pattern.anchor).flatten()
    return Plan(rows, frames * area, anchor, made, (frames, *pattern.size))
