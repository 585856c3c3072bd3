"""Features of an image at several scales, side by side: NVILA's dynamic S2.

Letters: n patches along a side of a tile, C width of the tower, s scales.

Source: https://github.com/NVlabs/VILA (April 2025); https://arxiv.org/abs/2412.04468 (NVILA).
"""

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from llava.nvila.tiles import Size


def scale_blocks(scales: Sequence[int], blocks: Size) -> list[Size]:
    """Return (rows, columns) of the tiles at each scale; those of the last one are `blocks`."""
    return [(scale // scales[0],) * 2 for scale in scales[:-1]] + [blocks]


def join_scales(features: torch.Tensor, grids: Sequence[Size], resize_to: int) -> tuple[torch.Tensor, Size]:
    """Join the features of an image at several scales.

    The tiles of each scale are stitched to one map; all maps are resized to the map of one of them, by the mean over
    the area of each new patch, joined along channels, and cut into the tiles of that scale again.

    Args:
        features: (tiles of all scales, n*n, C), scale by scale and row by row.
        grids: (rows, columns) of the tiles at each scale.
        resize_to: Index of the scale whose map decides the size; -1 is the last.

    Returns:
        Features (rows * columns, n*n, s*C) of the tiles, and their (rows, columns).
    """
    counts = [rows * columns for rows, columns in grids]
    maps = [stitched(tiles, grid) for tiles, grid in zip(features.split(counts), grids, strict=True)]
    rows, columns = grids[resize_to]
    size = maps[resize_to].shape[:2]
    channels_first = [one.permute(2, 0, 1)[None] for one in maps]
    resized = [F.interpolate(one.float(), size=size, mode="area").to(one) for one in channels_first]
    joined = torch.cat(resized, dim=1)[0].permute(1, 2, 0)  # (rows*n, columns*n, s*C)
    tiles = joined.unflatten(1, (columns, -1)).unflatten(0, (rows, -1)).transpose(1, 2)  # (rows, columns, n, n, s*C)
    return tiles.flatten(2, 3).flatten(0, 1), (rows, columns)


def stitched(tiles: torch.Tensor, grid: Size) -> torch.Tensor:
    """Put square maps (rows * columns, n*n, C) of tiles next to each other: (rows*n, columns*n, C)."""
    side = round(tiles.shape[1] ** 0.5)
    placed = tiles.unflatten(1, (side, side)).unflatten(0, grid)  # (rows, columns, n, n, C)
    whole: torch.Tensor = placed.transpose(1, 2).flatten(2, 3).flatten(0, 1)
    return whole
