"""Norm-based pooling the obvious way, as code for images does it: what `nsp` is timed against."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

UNFOLDED = "nsp, unfolded"


class Pooled(NamedTuple):
    """Tokens without a plan.

    Attributes:
        tokens: (N, D).
    """

    tokens: Tensor


def unfolded_nsp(tokens: Tensor) -> Pooled:
    """Copy every 2x2 window of `tokens` (T, H, W, D), weigh by the softmax of the norms, and sum."""
    frames, channels = tokens.shape[0], tokens.shape[3]
    maps = tokens.permute(0, 3, 1, 2)
    windows = F.unfold(maps, 2, stride=2).view(frames, channels, 4, -1)  # (T, D, 4, H'*W')
    norms = F.unfold(maps.norm(dim=1, keepdim=True) / channels**0.5, 2, stride=2)  # (T, 4, H'*W')
    return Pooled((windows * norms.softmax(dim=1)[:, None]).sum(dim=2).transpose(1, 2).flatten(0, 1))
