"""Mosaics of pictures: what `stgridpool.frames.mosaics` does to the tokens of frames, done to their pixels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from stgridpool.frames.layout import RewrittenFrames
from stgridpool.frames.mosaics import Level, appended, grid_layout, schedule


def tiled(frames: Tensor) -> Tensor:
    """Make a picture of each group of frames: they are resized by area and tiled row by row, as in a `mosaic`.

    Args:
        frames: (G, K, C, H, W), G groups of K frames, of any floating dtype.

    Returns:
        (G, C, H, W).
    """
    (groups, size), (height, width) = frames.shape[:2], frames.shape[3:]
    rows, columns = grid_layout(size)
    tile = (-(-height // rows), -(-width // columns))
    small = F.interpolate(frames.flatten(0, 1), tile, mode="area").unflatten(0, (groups, rows, columns))
    picture: Tensor = small.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)  # (G, C, rows * h, columns * w)
    return picture[..., :height, :width]


def gridded(frames: Tensor, levels: tuple[Level, ...], write: str = "replace") -> Tensor:
    """Make mosaics of some frames, and keep the others as they are.

    Args:
        frames: (T, C, H, W), of any floating dtype; they are not changed.
        levels: Of the pyramid.
        write: "replace", "append" or "blend", see `stgridpool.compressors.ptg.PTG`.

    Returns:
        (T', C, H, W).
    """
    grids, slots = schedule(len(frames), levels, write)
    known = list(frames)
    for one in grids:
        members = _stacked(known, one.members.flatten()).unflatten(0, one.members.shape)  # (G, K, C, H, W)
        made = tiled(members)
        known += (made + members[:, -1]) / 2 if write == "blend" else made
    drawn, _ = RewrittenFrames((), slots, appended(grids) if write == "append" else None).order()
    return _stacked(known, drawn)


def _stacked(frames: list[Tensor], chosen: Tensor) -> Tensor:
    """Return the frames `chosen` (n,), each (C, H, W), as (n, C, H, W)."""
    return torch.stack([frames[frame] for frame in chosen.tolist()])
