"""Norm-based spatial pooling (NSP)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from stgridpool.compressor import check_tokens
from stgridpool.parts.frame_pattern import NOTHING_REWRITTEN, RewrittenFrames, Windows, plan_frames
from stgridpool.parts.token_norm import token_norms
from stgridpool.parts.window_pooling import WindowPooling
from stgridpool.plan import Grid, Plan, to_device


@dataclass(frozen=True)
class NSP(WindowPooling):
    """Pool every window with weights that grow with the norms of its tokens.

    A token's weight is the softmax over its window of ``scale * ||x||_p / D^(1/p)``: tokens of large norm say more.
    Positions in the padding take part with norm 0 and add nothing.

    Source: ST-GridPool (ICLR 2026), norm-based spatial pooling. Unlike the released code, weights are computed in
    float32 whatever the dtype, so that half precision does not overflow.

    Attributes:
        norm_order: p, above 0; infinity takes the largest channel.
        scale: factor of the norm before the softmax; 0 is average pooling, large values take the strongest token.

    Raises:
        ValueError: if an option is out of its range.
    """

    norm_order: float = 2.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("norm_order", "scale"):
            object.__setattr__(self, name, float(getattr(self, name)))
        if not self.norm_order > 0:
            raise ValueError(f"norm_order must be above 0 or inf, got {self.norm_order}")
        if not math.isfinite(self.scale):
            raise ValueError(f"scale must be finite, got {self.scale}")

    def plan(self, tokens: Tensor) -> Plan:
        """Weigh the tokens of every window of `tokens` (T, H, W, D)."""
        grid = check_tokens(tokens)
        return self.plan_from_norms(token_norms(tokens, self.norm_order), grid)

    def plan_from_norms(self, norms: Tensor, grid: Grid, rewritten: RewrittenFrames = NOTHING_REWRITTEN) -> Plan:
        """The plan for tokens of known `norms` (T, H, W) float32, some frames of which may be rewritten."""
        windows = self.windows(grid)
        weights = window_softmax(norms.flatten(1) * self.scale, windows)
        return plan_frames(windows.pattern, grid, norms.device, weights, rewritten)


def window_softmax(scores: Tensor, windows: Windows) -> Tensor:
    """Softmax of `scores` (T, H*W) float32 over every window: (T, m), one weight per entry of the windows' pattern.

    Padding takes part with score 0, positions outside not at all; neither has an entry.
    """
    limit = torch.finfo(scores.dtype).max
    padding = scores.new_zeros(scores.shape[0], 1)
    outside = scores.new_full((scores.shape[0], 1), -math.inf)
    table = torch.cat([scores.clamp(-limit, limit), padding, outside], dim=1)  # (T, H*W + 2)
    weights = table[:, to_device(windows.index, scores.device)].softmax(dim=-1).flatten(1)  # (T, H'*W'*k*k)
    if windows.is_full:
        return weights
    entries = (windows.index.flatten() < scores.shape[1]).nonzero().flatten()
    return weights[:, to_device(entries, scores.device)]
