"""Average pooling."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from stgridpool.compressor import check_tokens
from stgridpool.frames.layout import lay_out
from stgridpool.frames.window_pooling import WindowPooling
from stgridpool.plan import Plan


@dataclass(frozen=True)
class Average(WindowPooling):
    """The mean of the tokens of every window; padding is not counted.

    Source: LLaVA-NeXT, ``mm_spatial_pool_mode: average``.
    """

    def plan(self, tokens: Tensor) -> Plan:
        """Equal weights in every window of `tokens` (T, H, W, D)."""
        grid = check_tokens(tokens)
        return lay_out(self.windows(grid).pattern, grid, tokens.device).plan
