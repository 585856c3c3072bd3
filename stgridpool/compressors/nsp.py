"""Norm-based spatial pooling (NSP)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from stgridpool import kernels
from stgridpool.algorithms.token_norm import norm_order, token_norms
from stgridpool.evidence import Evidence
from stgridpool.frames.layout import RewrittenFrames, lay_out, resident
from stgridpool.frames.patterns import Windows
from stgridpool.frames.window_pooling import WindowPooling
from stgridpool.options import number
from stgridpool.plan import MadeTables, Plan, make, to_device
from stgridpool.video_tokens import VideoTokens


@dataclass(frozen=True)
class NSP(WindowPooling):
    """Pool every window with weights that grow with the norms of its tokens.

    A token's weight is the softmax over its window of ``scale * ||x||_p / D^(1/p)``: tokens with a large norm count
    more. Padding enters the softmax with norm 0 and adds nothing to the output.

    Source: ST-GridPool (ICLR 2026), norm-based spatial pooling. Unlike the released code, we compute weights in float32
    for every dtype, so that half precision does not overflow.

    Attributes:
        norm_order: Order p of the norm, 0.25 to 64, or infinity (in JSON "inf"), which takes the largest channel.
        scale: Factor of the norm before the softmax, -1e12 to 1e12; 0 is average pooling, large values select the
            strongest token.

    Raises:
        ValueError: If an option is out of its range.
    """

    norm_order: float = 2.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "norm_order", norm_order(self.norm_order))
        object.__setattr__(self, "scale", number("scale", self.scale, -1e12, 1e12))

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Weigh the tokens of every window."""
        return self.plan_rewritten(tokens, None)

    def plan_rewritten(self, tokens: VideoTokens, rewritten: RewrittenFrames | None) -> Plan:
        """Weigh the tokens of every window after mosaics have replaced some frames."""
        maps = tokens.maps()
        windows = self.windows(tokens.shape)
        layout = lay_out(windows.pattern, tokens.shape, maps.device, rewritten)
        windows = resident(windows, maps.device)
        made = MadeTables(tokens.features, tuple(make(tokens.features, layout.made)))
        weights = self._weights(maps, windows, made.tables, rewritten)
        weights = weights.flatten(1)  # (T, H'*W'*k*k)
        plan = layout.weighted((weights if windows.is_full else weights[:, windows.entries]).flatten())
        return replace(plan, known=made)

    def _weights(
        self, maps: Tensor, windows: Windows, made: Sequence[Tensor], rewritten: RewrittenFrames | None
    ) -> Tensor:
        """Compute the weights (T', H'*W', k*k) of every window; `made` holds the mosaics, (F_l*H*W, D) per level."""
        can_run = kernels.can_run(maps) and kernels.window_fits(windows.index.shape[1], maps.shape[3])
        if can_run and (rewritten is None or rewritten.appended is None):
            from stgridpool.kernels.norm_weights import norm_weights  # noqa: PLC0415  # triton may be missing

            slots = resident(rewritten.slots, maps.device) if rewritten else None
            mosaics = torch.cat(list(made)) if made else None
            return norm_weights(maps, windows.index, self.norm_order, self.scale, mosaics, slots)
        norms = token_norms(maps, self.norm_order).flatten(1)  # (T, H*W)
        if rewritten is not None:
            of_made = torch.cat([token_norms(level, self.norm_order) for level in made]).view(-1, norms.shape[1])
            norms = torch.cat([norms, of_made])[to_device(rewritten.order()[0], maps.device)]
        return window_softmax(norms * self.scale, windows.index)


def window_softmax(scores: Tensor, index: Tensor) -> Tensor:
    """Take the softmax of `scores` (T, H*W) float32 over every window of `index` (H'*W', k*k): (T, H'*W', k*k).

    For the index see `Windows`. Padding has score 0; positions outside get weight 0.
    """
    limit = torch.finfo(scores.dtype).max
    padding = scores.new_zeros(scores.shape[0], 1)
    outside = scores.new_full((scores.shape[0], 1), -math.inf)
    table = torch.cat([scores.clamp(-limit, limit), padding, outside], dim=1)  # (T, H*W + 2)
    return table[:, index].softmax(dim=-1)
