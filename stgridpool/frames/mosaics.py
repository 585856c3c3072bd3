"""Pyramid temporal gridding: which frames become mosaics, and how a mosaic is made.

Source: ST-GridPool (ICLR 2026), pyramid temporal gridding, and its released code for rounding and order.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from stgridpool.frames.byte_cache import cached_by_bytes
from stgridpool.frames.layout import RewrittenFrames
from stgridpool.frames.patterns import resizing
from stgridpool.options import Pair
from stgridpool.plan import Shape, made_sizes
from stgridpool.rows import Rows

LARGEST_GRID = 1024
"""Maximum number of frames in a grid: the largest denominator of a stride."""


class Level(NamedTuple):
    """One level of the pyramid.

    Attributes:
        grid_size: Frames K per grid, at least 1.
        stride: Stride f in frames, at least 1: one of every f frames is sampled into a grid; 1.5 is two of every three.
    """

    grid_size: int
    stride: float


def sampled_frames(num_frames: int, stride: float) -> list[int]:
    """Return the last frame of each of ``floor(num_frames / stride)`` equal runs of frames.

    Like the released code, we round a float32 linspace half to even; exact arithmetic would choose other frames where
    `stride` does not divide `num_frames`. No frame is sampled twice, since runs are no shorter than a frame.
    """
    count = math.floor(num_frames / Fraction(stride).limit_denominator(LARGEST_GRID))
    edges = torch.linspace(0, num_frames, count + 1, dtype=torch.float32)[1:]
    return (edges - 1).round().clamp(0, num_frames - 1).long().tolist()


def grid_layout(grid_size: int) -> Pair:
    """Return rows and columns of a mosaic of `grid_size` frames: the factors closest to a square, rows >= columns."""
    columns = max(factor for factor in range(1, math.isqrt(grid_size) + 1) if grid_size % factor == 0)
    return grid_size // columns, columns


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def mosaic(frame: Pair, grid_size: int) -> Rows:
    """Make a mosaic of `grid_size` frames of (H, W) tokens: H*W rows over their K*H*W tokens, on the CPU.

    The frames are resized by area to the tile size, rounded up, and tiled row by row; the excess over H x W is cut off.
    """
    height, width = frame
    rows, columns = grid_layout(grid_size)
    tile_height, tile_width = -(-height // rows), -(-width // columns)
    tile = resizing(frame, (tile_height, tile_width), "area").rows
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    drawn = tile.take(((y % tile_height) * tile_width + x % tile_width).flatten())
    which = ((y // tile_height) * columns + x // tile_width).flatten()  # (H*W,), the frame of each position
    return Rows(drawn.sources + which[drawn.row_of_entry()] * height * width, drawn.offsets, drawn.weights)


def blended(frame: Pair, grid_size: int) -> Rows:
    """Mean of a `mosaic` of `grid_size` frames and of the last of them, on the CPU."""
    area = math.prod(frame)
    rows, itself = mosaic(frame, grid_size), torch.arange(area)
    row = torch.cat([rows.row_of_entry(), itself])
    sources = torch.cat([rows.sources, (grid_size - 1) * area + itself])
    return Rows.of_entries(row, sources, torch.cat([rows.weights, torch.ones(area)]) / 2, area)


class Grids(NamedTuple):
    """The grids of one level.

    Attributes:
        size: Frames K per grid.
        members: (G, K) int64, the frames of each grid; made frames follow the source frames, level by level.
        replaced: The last source frame of each grid.
    """

    size: int
    members: Tensor
    replaced: list[int]


def schedule(num_frames: int, levels: tuple[Level, ...], write: str = "replace") -> tuple[list[Grids], Tensor]:
    """Decide which frames make which mosaics, level by level.

    At each level the sampled frames are cut into grids of K consecutive ones, and the mosaic of a grid replaces its
    last frame, or is added after it. Frames that do not fill a grid stay unchanged. Grids of one level do not see each
    other's mosaics; those of later levels do, where frames are replaced.

    Args:
        num_frames: T.
        levels: Of the pyramid.
        write: "replace", "append" or "blend", see `stgridpool.compressors.ptg.PTG`.

    Returns:
        The levels that have a full grid, and (T,) int64, the mosaic that replaces each frame, or -1 for none.
    """
    slots = torch.full((num_frames,), -1)
    found: list[Grids] = []
    count = 0
    for level in levels:
        grids = torch.tensor(_full_grids(num_frames, level))  # (G, K)
        if not len(grids):
            continue
        tables = torch.where(slots < 0, torch.arange(num_frames), slots + num_frames)
        found.append(Grids(level.grid_size, tables[grids], grids[:, -1].tolist()))
        if write != "append":
            slots[grids[:, -1]] = torch.arange(count, count + len(grids))
        count += len(grids)
    return found, slots


@cached_by_bytes()
@torch.inference_mode(False)
def rewrite(shape: Shape, levels: tuple[Level, ...], write: str = "replace") -> RewrittenFrames | None:
    """Make mosaics of frames of a (T, H, W) video, as `schedule` decides; None if no grid is full.

    Args:
        shape: (T, H, W).
        levels: Of the pyramid.
        write: "replace", "append" or "blend", see `stgridpool.compressors.ptg.PTG`.
    """
    num_frames, height, width = shape
    grids, slots = schedule(num_frames, levels, write)
    made: list[Rows] = []
    pattern = blended if write == "blend" else mosaic
    for one in grids:
        rows = over_grids(pattern((height, width), one.size), one.members, height * width)
        made.append(rows.divided(made_sizes(math.prod(shape), made)) if made else rows)
    if not made:
        return None
    return RewrittenFrames(tuple(made), slots, appended(grids) if write == "append" else None)


def appended(grids: list[Grids]) -> Tensor:
    """Return the source frame (G,) after which each mosaic is added, where mosaics do not replace frames."""
    return torch.tensor([frame for one in grids for frame in one.replaced])


def num_grids(num_frames: int, levels: tuple[Level, ...]) -> int:
    """Count the mosaics that `rewrite` makes."""
    return sum(len(_full_grids(num_frames, level)) for level in levels)


def _full_grids(num_frames: int, level: Level) -> list[list[int]]:
    frames = sampled_frames(num_frames, level.stride)
    last = len(frames) - level.grid_size
    return [frames[first : first + level.grid_size] for first in range(0, last + 1, level.grid_size)]


def over_grids(pattern: Rows, tables: Tensor, area: int) -> Rows:
    """Make a mosaic for each grid; `tables` (G, K) is the frame of the address space from which a member is drawn."""
    member, token = pattern.sources // area, pattern.sources % area
    sources = (tables[:, member] * area + token).flatten()
    offsets = (torch.arange(len(tables))[:, None] * token.numel() + pattern.offsets[1:]).flatten()
    return Rows(sources, F.pad(offsets, (1, 0)), pattern.weights.repeat(len(tables)))
