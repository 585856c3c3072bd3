"""Max pooling."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from stgridpool.compressor import Compressed, check_tokens
from stgridpool.frames.layout import lay_out
from stgridpool.frames.window_pooling import WindowPooling
from stgridpool.plan import Plan

_CHUNK_FRAMES = 8


@dataclass(frozen=True)
class Max(WindowPooling):
    """The largest value of every channel in every window: the one method here that is not linear.

    Its plan says which tokens a window holds, in equal shares, and does not reproduce its tokens: call the compressor.

    Source: LLaVA-NeXT, ``mm_spatial_pool_mode: max``.
    """

    def plan(self, tokens: Tensor) -> Plan:
        """The windows of `tokens` (T, H, W, D), in equal shares."""
        grid = check_tokens(tokens)
        return lay_out(self.windows(grid).pattern, grid, tokens.device).plan

    def compress(self, tokens: Tensor) -> Compressed:
        """The channel-wise maxima (N, D) and the plan of their windows."""
        plan = self.plan(tokens)
        sizes, stride, padding = self._pairs()
        kernel = [min(size, side + 2 * pad) for size, side, pad in zip(sizes, plan.grid[1:], padding, strict=True)]
        pooled = tokens.new_empty(*plan.shape, tokens.shape[3])
        # torch also makes an int64 index of every maximum, so a few frames at a time.
        for frames, out in zip(tokens.split(_CHUNK_FRAMES), pooled.split(_CHUNK_FRAMES), strict=True):
            maps = frames.permute(0, 3, 1, 2)  # (t, D, H, W), a view
            maxima = F.max_pool2d(maps, kernel, stride, padding, ceil_mode=self.ceil_mode)
            out.copy_(maxima.permute(0, 2, 3, 1))
        return Compressed(pooled.flatten(0, 2), plan)
