"""Every token, as it is."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from stgridpool.compressor import Compressed, Compressor, check_tokens
from stgridpool.frames.layout import lay_out
from stgridpool.frames.patterns import every_token
from stgridpool.plan import Grid, Plan


@dataclass(frozen=True)
class NoCompression(Compressor):
    """Keep every token: what a method has to be compared with."""

    def planned_shape(self, grid: Grid) -> Grid:
        """The grid itself."""
        return grid

    def plan(self, tokens: Tensor) -> Plan:
        """One row per token of `tokens` (T, H, W, D)."""
        grid = check_tokens(tokens)
        return lay_out(every_token(grid[1:]), grid, tokens.device).plan

    def compress(self, tokens: Tensor) -> Compressed:
        """`tokens` as (T*H*W, D), a view where its layout allows, and the plan that keeps them all."""
        return Compressed(tokens.flatten(0, 2), self.plan(tokens))
