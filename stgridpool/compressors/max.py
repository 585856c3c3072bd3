"""Max pooling."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from stgridpool.compressor import Compressed, check_tokens
from stgridpool.parts.frame_pattern import plan_frames
from stgridpool.parts.window_pooling import WindowPooling
from stgridpool.plan import Plan


@dataclass(frozen=True)
class Max(WindowPooling):
    """The largest value of every channel in every window: the one method here that is not linear.

    Its plan says which tokens a window holds, in equal shares, and does not reproduce its tokens: call the compressor.

    Source: LLaVA-NeXT, ``mm_spatial_pool_mode: max``.
    """

    def plan(self, tokens: Tensor) -> Plan:
        """The windows of `tokens` (T, H, W, D), in equal shares."""
        grid = check_tokens(tokens)
        return plan_frames(self.windows(grid).pattern, grid, tokens.device)

    def compress(self, tokens: Tensor) -> Compressed:
        """The channel-wise maxima (N, D) and the plan of their windows."""
        plan = self.plan(tokens)
        kernel, stride, padding = self._pairs()
        fitting = [min(k, side + 2 * pad) for k, side, pad in zip(kernel, tokens.shape[1:3], padding, strict=True)]
        maps = tokens.permute(0, 3, 1, 2)  # (T, D, H, W), a view: each token's channels stay together in memory
        pooled = F.max_pool2d(maps, fitting, stride, padding, ceil_mode=self.ceil_mode)
        return Compressed(pooled.permute(0, 2, 3, 1).reshape(len(plan), -1), plan)
