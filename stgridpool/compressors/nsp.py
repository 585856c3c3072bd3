"""Norm-based spatial pooling (NSP)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stgridpool import kernels
from stgridpool.algorithms.token_norm import token_norms
from stgridpool.compressor import Compressed, check_tokens
from stgridpool.frames.layout import NOTHING_REWRITTEN, RewrittenFrames, lay_out, resident
from stgridpool.frames.window_pooling import WindowPooling
from stgridpool.options import number
from stgridpool.plan import Plan


@dataclass(frozen=True)
class NSP(WindowPooling):
    """Pool every window with weights that grow with the norms of its tokens.

    A token's weight is the softmax over its window of ``scale * ||x||_p / D^(1/p)``: tokens of large norm say more.
    Positions in the padding take part with norm 0 and add nothing.

    Source: ST-GridPool (ICLR 2026), norm-based spatial pooling. Unlike the released code, weights are computed in
    float32 whatever the dtype, so that half precision does not overflow.

    Attributes:
        norm_order: p, 0.25 to 64, or infinity (in JSON "inf"), which takes the largest channel.
        scale: factor of the norm before the softmax, -1e12 to 1e12; 0 is average pooling, large values take the
            strongest token.

    Raises:
        ValueError: if an option is out of its range.
    """

    norm_order: float = 2.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "norm_order", _norm_order(self.norm_order))
        object.__setattr__(self, "scale", number("scale", self.scale, -1e12, 1e12))

    def plan(self, tokens: Tensor) -> Plan:
        """Weigh the tokens of every window of `tokens` (T, H, W, D)."""
        return self.plan_rewritten(tokens)

    def compress(self, tokens: Tensor) -> Compressed:
        """The pooled tokens (N, D) and the plan; on a GPU both from reading `tokens` once."""
        return self.compress_rewritten(tokens)

    def plan_rewritten(
        self, tokens: Tensor, rewritten: RewrittenFrames = NOTHING_REWRITTEN, mosaics: Tensor | None = None
    ) -> Plan:
        """As `plan`, with some frames replaced by `mosaics` (F*H*W, D), the extra rows that `rewritten` makes."""
        return self._decide(tokens, rewritten, mosaics, with_pooled=False)[0]

    def compress_rewritten(
        self, tokens: Tensor, rewritten: RewrittenFrames = NOTHING_REWRITTEN, mosaics: Tensor | None = None
    ) -> Compressed:
        """As `compress`, with frames replaced as in `plan_rewritten`."""
        plan, pooled = self._decide(tokens, rewritten, mosaics, with_pooled=True)
        return Compressed(plan.apply(tokens, mosaics) if pooled is None else pooled, plan)

    def _decide(
        self, tokens: Tensor, rewritten: RewrittenFrames, mosaics: Tensor | None, with_pooled: bool
    ) -> tuple[Plan, Tensor | None]:
        """The plan, and the pooled tokens where they come with it at no cost."""
        grid = check_tokens(tokens)
        windows = self.windows(grid)
        layout = lay_out(windows.pattern, grid, tokens.device, rewritten)
        windows = resident(windows, tokens.device)
        mosaics = mosaics if rewritten.frames else None
        pooled = None
        if kernels.can_run(tokens) and kernels.window_fits(windows.index.shape[1], tokens.shape[3]):
            from stgridpool.kernels.norm_pooling import pool_by_norm  # noqa: PLC0415  # triton may be missing

            order, scale = self.norm_order, self.scale
            weights, pooled = pool_by_norm(tokens, windows.index, order, scale, mosaics, layout.slots, with_pooled)
        else:
            norms = token_norms(tokens, self.norm_order)  # (T, H, W)
            if mosaics is not None:
                mosaic_norms = token_norms(mosaics, self.norm_order).view(-1, *grid[1:])
                norms.index_copy_(0, layout.rewritten, mosaic_norms)
            weights = window_softmax(norms.flatten(1) * self.scale, windows.index)
        weights = weights.flatten(1)  # (T, H'*W'*k*k)
        return layout.weighted(weights if windows.is_full else weights[:, windows.entries]), pooled


def _norm_order(value: Any) -> float:
    """Return the order of the norm; beyond its range, powers of channels or of their number overflow float32."""
    return math.inf if value in (math.inf, "inf") else number("norm_order (or inf)", value, 0.25, 64)


def window_softmax(scores: Tensor, index: Tensor) -> Tensor:
    """Softmax of `scores` (T, H*W) float32 over every window of `index` (H'*W', k*k), see `Windows`: (T, H'*W', k*k).

    Padding takes part with score 0, positions outside not at all.
    """
    limit = torch.finfo(scores.dtype).max
    padding = scores.new_zeros(scores.shape[0], 1)
    outside = scores.new_full((scores.shape[0], 1), -math.inf)
    table = torch.cat([scores.clamp(-limit, limit), padding, outside], dim=1)  # (T, H*W + 2)
    return table[:, index].softmax(dim=-1)
