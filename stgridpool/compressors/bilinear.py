"""Bilinear resizing."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from stgridpool.compressor import Compressor, check_tokens
from stgridpool.frames.layout import lay_out
from stgridpool.frames.patterns import resizing
from stgridpool.options import LONGEST_SIDE, Pair, pair
from stgridpool.plan import Grid, Plan


@dataclass(frozen=True)
class Bilinear(Compressor):
    """Resize every frame to ``ceil(H / stride)`` rows and ``ceil(W / stride)`` columns: 27 become 14.

    Bilinear without aligned corners or antialiasing. It is the pooling that LLaVA-Video and LLaVA-OneVision
    checkpoints ask for.

    Source: LLaVA-NeXT, ``mm_spatial_pool_mode: bilinear``.

    Attributes:
        stride: tokens per new token along a side, a number or (rows, columns), 1 to 256.

    Raises:
        ValueError: if `stride` is out of its range.
    """

    stride: int | Pair = 2

    def __post_init__(self) -> None:
        pair("stride", self.stride, 1, LONGEST_SIDE)
        object.__setattr__(self, "stride", self.stride if isinstance(self.stride, int) else tuple(self.stride))

    def planned_shape(self, grid: Grid) -> Grid:
        """(T, ceil(H / stride), ceil(W / stride))."""
        rows, columns = pair("stride", self.stride, 1, LONGEST_SIDE)
        return grid[0], -(-grid[1] // rows), -(-grid[2] // columns)

    def plan(self, tokens: Tensor) -> Plan:
        """At most four weights for every new token of `tokens` (T, H, W, D)."""
        grid = check_tokens(tokens)
        return lay_out(resizing(grid[1:], self.planned_shape(grid)[1:], "linear"), grid, tokens.device).plan
