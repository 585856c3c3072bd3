"""Patterns that treat every frame alike: pooling windows and resizing.

A pattern is a small sparse matrix over the H*W tokens of one frame. It is made on the CPU and cached per size; cached
tensors are never changed, and they are never inference tensors, since the next caller may need gradients.
`stgridpool.frames.layout` lays a pattern over all frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from stgridpool.options import Pair
from stgridpool.rows import Rows


@dataclass(frozen=True, eq=False)
class FramePattern:
    """A plan for one frame, on the CPU, which is the same for all frames.

    Attributes:
        rows: H'*W' rows over the tokens of one frame.
        size: (H', W') of the lattice that the rows fill in row-major order.
        anchor: (H'*W',) int64, the token whose place each row takes; for a window, its first token.
    """

    rows: Rows
    size: Pair
    anchor: Tensor

    @classmethod
    def of(cls, rows: Rows, frame: Pair, size: Pair) -> FramePattern:
        """Make a pattern from rows over a frame of (H, W) tokens; the rows fill a lattice of `size`."""
        down, across = (torch.arange(new) * old // new for old, new in zip(frame, size, strict=True))
        return cls(rows, size, (down[:, None] * frame[1] + across).flatten())


@dataclass(frozen=True, eq=False)
class Windows:
    """Pooling windows over one frame; on the CPU.

    Attributes:
        index: (H'*W', k*k) int64, the source token at each position, H*W in the padding, or H*W + 1 outside.
        entries: (m,) int64, the positions that hold source tokens, numbered through all windows.
        pattern: The source tokens of each window, with equal weights that sum to 1.
        is_full: Whether every position of every window holds a source token.
    """

    index: Tensor
    entries: Tensor
    pattern: FramePattern
    is_full: bool


def window_starts(size: int, kernel: int, stride: int, padding: int, ceil_mode: bool) -> tuple[range, int]:
    """Return the first positions of the windows along one side, and their length, at most that of the padded side.

    There are ``floor((size + 2 padding - kernel) / stride) + 1`` windows. `ceil_mode` adds one if tokens would be left
    over, unless it would begin beyond the last token.
    """
    kernel = min(kernel, size + 2 * padding)
    room = size + 2 * padding - kernel
    count = (math.ceil(room / stride) if ceil_mode else room // stride) + 1
    if (count - 1) * stride >= size + padding:
        count -= 1
    return range(-padding, count * stride - padding, stride), kernel


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def pooling_windows(frame: Pair, kernel: Pair, stride: Pair, padding: Pair, ceil_mode: bool) -> Windows:
    """Lay out windows of `kernel` (rows, columns) every `stride` over a frame of (H, W) tokens, see `window_starts`."""
    positions, sides, outside, padded = [], [], [], []
    for axis in range(2):
        starts, length = window_starts(frame[axis], kernel[axis], stride[axis], padding[axis], ceil_mode)
        position = torch.tensor(starts)[:, None] + torch.arange(length)  # (H', k)
        positions.append(position)
        sides.append(len(starts))
        padded.append((position < 0) | (position >= frame[axis]))
        outside.append(position >= frame[axis] + padding[axis])
    rows, columns = positions

    def combine(vertical: Tensor, horizontal: Tensor) -> Tensor:
        return (vertical[:, None, :, None] | horizontal[None, :, None, :]).reshape(math.prod(sides), -1)

    index = (rows[:, None, :, None] * frame[1] + columns[None, :, None, :]).reshape(math.prod(sides), -1)
    index = index.masked_fill(combine(*padded), math.prod(frame))
    index = index.masked_fill(combine(*outside), math.prod(frame) + 1)
    is_source = index < math.prod(frame)
    counts = is_source.sum(dim=1)
    weights = torch.repeat_interleave(1 / counts, counts)
    size = (sides[0], sides[1])
    rows_of_windows = Rows(index[is_source], F.pad(counts.cumsum(0), (1, 0)), weights)
    pattern = FramePattern.of(rows_of_windows, frame, size)
    return Windows(index, is_source.flatten().nonzero().flatten(), pattern, bool(is_source.all()))


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def resizing(frame: Pair, size: Pair, mode: Literal["linear", "area"]) -> FramePattern:
    """Resize a frame of (H, W) tokens to `size`, like ``torch.nn.functional.interpolate``.

    ``linear`` is bilinear without aligned corners or antialiasing; ``area`` averages the source tokens that an output
    token covers, and counts partly covered ones in full.
    """
    vertical, horizontal = (axis_weights(old, new, mode) for old, new in zip(frame, size, strict=True))
    dense = torch.einsum("ya,xb->yxab", vertical, horizontal).reshape(math.prod(size), math.prod(frame))
    row, source = dense.nonzero(as_tuple=True)
    counts = torch.bincount(row, minlength=len(dense))
    return FramePattern.of(Rows(source, F.pad(counts.cumsum(0), (1, 0)), dense[row, source]), frame, size)


def axis_weights(old: int, new: int, mode: Literal["linear", "area"]) -> Tensor:
    """Return the weight of each old position along a side in each new one, (new, old).

    Args:
        old: Number of old positions.
        new: Number of new positions.
        mode: See `resizing`.
    """
    units = torch.eye(old)[None]  # resizing unit vectors yields the weights
    return F.interpolate(units, size=new, mode=mode, align_corners=False if mode == "linear" else None)[0].T


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def every_token(frame: Pair) -> FramePattern:
    """Select each token of a frame of (H, W)."""
    return FramePattern.of(Rows.of(torch.arange(math.prod(frame))), frame, frame)
