"""One pattern laid over every frame: the plans of methods that treat all frames alike.

Patterns depend only on the size of a frame. They are made once, on the CPU, and cached on the device that uses them, so
that planning needs no transfer and never waits. Cached tensors are never changed, and they are never inference tensors,
since the next caller may need gradients.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from stgridpool.frames.byte_cache import cached_by_bytes
from stgridpool.frames.patterns import FramePattern
from stgridpool.plan import Plan, Shape, made_sizes, to_device
from stgridpool.rows import Rows

_Value = TypeVar("_Value")


@dataclass(frozen=True, eq=False)
class RewrittenFrames:
    """Frames made of others, which replace some of them or follow them before a pattern is laid over all.

    Attributes:
        made: The rows, level by level, see `Plan.made`; each level makes whole frames of H*W rows.
        slots: (T,) int64, the made frame that replaces each frame, numbered through all levels, or -1 for none.
        appended: (G,) int64, the frame after which each made frame is added; None if they replace frames.
    """

    made: tuple[Rows, ...]
    slots: Tensor
    appended: Tensor | None = None

    def order(self) -> tuple[Tensor, Tensor]:
        """Return for each frame of the result where it is drawn from and the frame in whose place it stands.

        Returns:
            Twice (T',) int64 on the CPU: the frame of the address space, where made frames follow the T source frames,
            and the source frame.
        """
        frames = torch.arange(len(self.slots))
        if self.appended is None:
            return torch.where(self.slots < 0, frames, self.slots + len(frames)), frames
        places, drawn = torch.cat([frames, self.appended]).sort(stable=True)
        return drawn, places


def lay_out(
    pattern: FramePattern, shape: Shape, device: torch.device, rewritten: RewrittenFrames | None = None
) -> Plan:
    """Lay `pattern` over every frame.

    Args:
        pattern: Over the H*W tokens of one frame.
        shape: (T, H, W) of the source tokens.
        device: Device of the plan.
        rewritten: Frames to draw from made rows instead, or None.
    """
    if rewritten is not None:
        return resident(_with_mosaics(pattern, shape, rewritten), device)
    frames = torch.arange(shape[0], device=device)
    return _over_frames(resident(pattern, device), frames, frames, shape, ())


@cached_by_bytes()
@torch.inference_mode(False)
def resident(value: _Value, device: torch.device) -> _Value:
    """Return a cached copy of `value`, which is itself cached per size, with its tensors on `device`."""
    moved = to_device(value, device)
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()  # the next user may be on another stream
    return moved


@cached_by_bytes()
@torch.inference_mode(False)
def _with_mosaics(pattern: FramePattern, shape: Shape, rewritten: RewrittenFrames) -> Plan:
    plan = _over_frames(pattern, *rewritten.order(), shape, rewritten.made)
    return replace(plan, rows=plan.rows.divided(made_sizes(plan.num_sources, rewritten.made)))


@torch.inference_mode(False)
def _over_frames(pattern: FramePattern, tables: Tensor, places: Tensor, shape: Shape, made: tuple[Rows, ...]) -> Plan:
    """Lay a pattern over frames.

    Args:
        pattern: Over the H*W tokens of one frame.
        tables: (T',), the frame of the address space from which each frame of the result is drawn.
        places: (T',), the source frame in whose place it stands.
        shape: (T, H, W) of the source tokens.
        made: Rows that are computed first.
    """
    area, frames, entries = shape[1] * shape[2], len(tables), pattern.rows.sources.numel()
    order = torch.arange(frames, device=tables.device)
    sources = tables[:, None] * area + pattern.rows.sources
    offsets = (order[:, None] * entries + pattern.rows.offsets[:-1]).flatten()
    rows = Rows(
        sources.flatten(),
        torch.cat([offsets, offsets.new_full((1,), frames * entries)]),
        pattern.rows.weights.repeat(frames),
        selects=pattern.rows.selects,
    )
    anchor = (places[:, None] * area + pattern.anchor).flatten()
    return Plan(rows, shape[0] * area, anchor, made, (frames, *pattern.size))
