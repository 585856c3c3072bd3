"""Resizing a frame to a number of tokens, even one that is not a product of two suitable sides."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import torch
from torch.nn import functional as F

from stgridpool.frames.patterns import FramePattern, axis_weights
from stgridpool.options import Pair
from stgridpool.rows import Rows

MOST_UNEVEN = 2
"""How much more a frame may shrink along one side than along the other, where a lattice of the wanted size exists."""


@lru_cache(maxsize=64)
def row_lengths(frame: Pair, count: int) -> tuple[int, ...]:
    """Return how many tokens each row has after resizing a frame of (H, W) tokens to `count`, 1 to H * W.

    Rows of equal length are chosen if the frame then shrinks at most twice as much along one side as along the other,
    and among those the choice that shrinks both most alike, of equals the one of fewer rows. Otherwise there are
    ``sqrt(count H / W)`` rows, rounded half to even and kept within the frame, and the first ones have one token more.
    """
    height, width = frame
    fitting = [
        rows for rows in range(1, height + 1) if count % rows == 0 and count // rows <= width
    ]  # at least one row, or too many columns
    uneven = {rows: abs(math.log(height * (count // rows) / (rows * width))) for rows in fitting}
    best = min(fitting, key=lambda rows: uneven[rows], default=0)
    if best and uneven[best] <= math.log(MOST_UNEVEN) + 1e-9:
        return (count // best,) * best
    rows = min(max(round(math.sqrt(count * height / width)), -(-count // width), 1), height, count)
    return tuple(count // rows + (row < count % rows) for row in range(rows))


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def resizing_to(frame: Pair, count: int, mode: Literal["linear", "area"]) -> FramePattern:
    """Resize a frame of (H, W) tokens to `count` tokens: its rows to the number wanted, and each row to its length.

    Rows of equal length are what `resizing` makes; others fill no lattice, and `size` then is (count, 1).
    """
    lengths = row_lengths(frame, count)
    vertical = axis_weights(frame[0], len(lengths), mode)  # (rows, H)
    horizontal = {length: axis_weights(frame[1], length, mode) for length in set(lengths)}
    made = [torch.einsum("a,xb->xab", down, horizontal[length]) for down, length in zip(vertical, lengths, strict=True)]
    dense = torch.cat(made).flatten(1)  # (count, H*W)
    row, source = dense.nonzero(as_tuple=True)
    offsets = F.pad(torch.bincount(row, minlength=count).cumsum(0), (1, 0))
    tops = [index * frame[0] // len(lengths) for index in range(len(lengths))]
    places = [
        top * frame[1] + torch.arange(length) * frame[1] // length for top, length in zip(tops, lengths, strict=True)
    ]
    size = (len(lengths), lengths[0]) if len(set(lengths)) == 1 else (count, 1)
    return FramePattern(Rows(source, offsets, dense[row, source]), size, torch.cat(places))
