"""Max pooling."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor
from torch.nn import functional as F

from stgridpool.evidence import Evidence
from stgridpool.frames.layout import lay_out
from stgridpool.frames.window_pooling import WindowPooling
from stgridpool.plan import Plan, Shape
from stgridpool.video_tokens import VideoTokens

_CHUNK_FRAMES = 8


@dataclass(frozen=True)
class Max(WindowPooling):
    """Take the largest value of every channel in every window: the one method here that is not linear.

    The plan lists the tokens of each window with equal weights; it does not reproduce the values.

    Source: LLaVA-NeXT, ``mm_spatial_pool_mode: max``.
    """

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """List the tokens of every window, with equal weights."""
        maps = tokens.maps()
        return replace(lay_out(self.windows(tokens.shape).pattern, tokens.shape, maps.device), reproduces=False)

    def values(self, features: Tensor, shape: Shape, plan: Plan) -> Tensor:
        """Compute the largest value of every channel in every window."""
        del plan
        sizes, stride, padding = self._pairs()
        kernel = [min(size, side + 2 * pad) for size, side, pad in zip(sizes, shape[1:], padding, strict=True)]
        pooled = features.new_empty(*self.planned_shape(shape), features.shape[1])
        # torch also makes an int64 index of every maximum, so we pool a few frames at a time.
        for frames, out in zip(
            features.view(*shape, -1).split(_CHUNK_FRAMES), pooled.split(_CHUNK_FRAMES), strict=True
        ):
            maps = frames.permute(0, 3, 1, 2)  # (t, D, H, W), a view
            maxima = F.max_pool2d(maps, kernel, stride, padding, ceil_mode=self.ceil_mode)
            out.copy_(maxima.permute(0, 2, 3, 1))
        return pooled.flatten(0, 2)
