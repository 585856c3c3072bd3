"""Pyramid temporal gridding: which frames become mosaics, and how a mosaic is made.

Source: ST-GridPool (ICLR 2026), pyramid temporal gridding, and its released code for rounding and order.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from stgridpool.frames.layout import RewrittenFrames
from stgridpool.frames.patterns import resizing
from stgridpool.options import Pair
from stgridpool.plan import ExtraStep, Grid, Patch, Rows


class Level(NamedTuple):
    """One level of the pyramid.

    Attributes:
        grid_size: K, frames per grid, at least 1.
        stride: f, in frames: one frame of every f is taken into a grid.
    """

    grid_size: int
    stride: int


def sampled_frames(num_frames: int, stride: int) -> list[int]:
    """The last frame of every run of `stride`, spread over all frames: ``num_frames // stride`` of them.

    Rounded half to even from a float32 linspace, as the released code does it: exact arithmetic gives other frames
    where `stride` does not divide `num_frames`.
    """
    edges = torch.linspace(0, num_frames, num_frames // stride + 1, dtype=torch.float32)[1:]
    return (edges - 1).round().clamp(0, num_frames - 1).long().tolist()


def grid_layout(grid_size: int) -> Pair:
    """Rows and columns of a mosaic of `grid_size` frames: the factors closest to a square, rows not fewer."""
    columns = max(factor for factor in range(1, math.isqrt(grid_size) + 1) if grid_size % factor == 0)
    return grid_size // columns, columns


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def mosaic(frame: Pair, grid_size: int) -> Rows:
    """A mosaic of `grid_size` frames of (H, W) tokens: H*W rows over their K*H*W tokens, on the CPU.

    The frames are resized by area to the tile size, rounded up, and laid out row by row; what goes beyond H x W is cut.
    """
    height, width = frame
    rows, columns = grid_layout(grid_size)
    tile_height, tile_width = -(-height // rows), -(-width // columns)
    tile = resizing(frame, (tile_height, tile_width), "area")
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    drawn = tile.take(((y % tile_height) * tile_width + x % tile_width).flatten())
    which = ((y // tile_height) * columns + x // tile_width).flatten()  # (H*W,) the frame of each position
    return Rows(drawn.sources + which[drawn.row_of_entry()] * height * width, drawn.offsets, drawn.weights)


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def grid_frames(grid: Grid, levels: tuple[Level, ...]) -> RewrittenFrames:
    """The frames of a (T, H, W) grid that become mosaics, level after level; none where no grid is full.

    At each level the sampled frames are cut into grids of K in a row, and the last frame of each becomes their mosaic.
    Frames that fill no grid are left. Grids of one level do not see each other's mosaics; later levels do.
    """
    num_frames, *frame = grid
    grids = [_full_grids(num_frames, level) for level in levels]
    frames = sorted({members[-1] for level in grids for members in level})
    slot = {target: order for order, target in enumerate(frames)}
    written: set[int] = set()
    steps = []
    for level, members in zip(levels, grids, strict=True):
        if members:
            steps.append(_level_step(mosaic((frame[0], frame[1]), level.grid_size), members, slot, written, grid))
            written |= {frames_of_grid[-1] for frames_of_grid in members}
    return RewrittenFrames(tuple(frames), tuple(steps))


def _full_grids(num_frames: int, level: Level) -> list[list[int]]:
    frames = sampled_frames(num_frames, level.stride)
    last = len(frames) - level.grid_size
    return [frames[first : first + level.grid_size] for first in range(0, last + 1, level.grid_size)]


def _level_step(
    pattern: Rows, members: list[list[int]], slot: dict[int, int], written: set[int], grid: Grid
) -> ExtraStep:
    """The mosaics of one level: draws from the frames that no earlier level has written, and from those that it has."""
    area = grid[1] * grid[2]
    member, token = pattern.sources // area, pattern.sources % area
    frames = torch.tensor(members)  # (G, K)
    is_written = torch.tensor([[frame in written for frame in row] for row in members])
    table_frame = torch.tensor([[slot[frame] if frame in written else frame for frame in row] for row in members])
    sources = (table_frame[:, member] * area + token).flatten()
    offsets = (torch.arange(len(members))[:, None] * token.numel() + pattern.offsets[1:]).flatten()
    rows = Rows(sources, F.pad(offsets, (1, 0)), pattern.weights.repeat(len(members)))
    from_input, patch = _split(rows, is_written[:, member].flatten())
    slots = torch.tensor([slot[int(target)] for target in frames[:, -1]])
    return ExtraStep((slots[:, None] * area + torch.arange(area)).flatten(), from_input, patch)


def _split(rows: Rows, is_extra: Tensor) -> tuple[Rows, Patch | None]:
    """Entries that draw from the input, and those that draw from the extra rows."""
    row = rows.row_of_entry()

    def part(chosen: Tensor) -> tuple[Rows, Tensor]:
        counts = torch.bincount(row[chosen], minlength=len(rows))
        return Rows(rows.sources[chosen], F.pad(counts.cumsum(0), (1, 0)), rows.weights[chosen]), counts

    from_input, _ = part(~is_extra)
    from_extra, counts = part(is_extra)
    targets = counts.nonzero().flatten()
    return from_input, (Patch(targets, from_extra.take(targets)) if targets.numel() else None)
