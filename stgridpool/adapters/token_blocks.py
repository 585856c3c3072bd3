"""Rows of patches in the order of the tokens that are made of them."""

from __future__ import annotations

import math

from torch import Tensor


def blocks_of_tokens(rows: Tensor, side: int, num_rows: int) -> Tensor:
    """Reorder rows of square frames from raster order to one token's block after the other.

    Args:
        rows: (F * P, ...), one for each of the P patches of a frame.
        side: Tokens along a side of a frame.
        num_rows: P, a multiple of the tokens of a frame.
    """
    block = math.isqrt(num_rows) // side
    blocks: Tensor = rows.unflatten(0, (-1, side, block, side, block))  # (F, H, k, W, k, ...)
    return blocks.transpose(2, 3).flatten(0, 4)
