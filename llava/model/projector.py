"""The projector: from vision features to embeddings of the language model."""

import re

import torch
from torch import nn
from torch.nn import functional as F

DOWNSAMPLING = {"mlp_downsample": 2, "mlp_downsample_2x2_fix": 2, "mlp_downsample_3x3_fix": 3}
"""Patches along a side of the square that becomes one token, by the name of the projector; 1 for all others."""


class Downsample(nn.Module):
    """Join the features of every square of k x k neighbouring patches, row by row.

    Sides that k does not divide are padded with zeros at the bottom and on the right.

    Args:
        side: k, in patches.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map features (B, n*n, C) of square maps to (B, m*m, k*k*C), where m is n / k, rounded up."""
        side, k = round(features.shape[1] ** 0.5), self.side
        missing = -side % k
        maps = F.pad(features.unflatten(1, (side, side)), (0, 0, 0, missing, 0, missing))
        blocks = maps.unflatten(2, (-1, k)).unflatten(1, (-1, k)).transpose(2, 3)  # (B, m, m, k, k, C)
        joined: torch.Tensor = blocks.flatten(3).flatten(1, 2)
        return joined

    def extra_repr(self) -> str:
        """Show k."""
        return str(self.side)


def build_projector(projector_type: str, in_features: int, out_features: int) -> nn.Module:
    """Build the projector of a checkpoint; its parameter names match the checkpoint.

    Args:
        projector_type: `linear`, `identity`, `mlpNx_gelu`: N linear layers with exact GELU between them, or one of
            `DOWNSAMPLING`, which first joins neighbouring patches (NVILA).
        in_features: Width of the vision features.
        out_features: Width of the language model.

    Raises:
        ValueError: If `projector_type` is none of these.
    """
    if projector_type == "identity":
        return nn.Identity()
    if projector_type == "linear":
        return nn.Linear(in_features, out_features)
    if projector_type in DOWNSAMPLING:
        return _downsampling(DOWNSAMPLING[projector_type], in_features, out_features)
    match = re.fullmatch(r"mlp(\d+)x_gelu", projector_type)
    if match is None:
        known = ", ".join(["linear", "identity", *DOWNSAMPLING])
        raise ValueError(f"mm_projector_type must be {known} or mlpNx_gelu, got {projector_type!r}")
    layers: list[nn.Module] = [nn.Linear(in_features, out_features)]
    for _ in range(int(match.group(1)) - 1):
        layers += [nn.GELU(), nn.Linear(out_features, out_features)]
    return nn.Sequential(*layers)


def _downsampling(side: int, in_features: int, out_features: int) -> nn.Module:
    """Build an NVILA projector; the one for squares of 3 narrows the joined features in two stages."""
    width = side * side * in_features
    layers: list[nn.Module] = [Downsample(side), nn.LayerNorm(width)]
    if side == 3:
        layers += [nn.Linear(width, 3 * in_features), nn.GELU(), nn.LayerNorm(3 * in_features)]
        width = 3 * in_features
    return nn.Sequential(*layers, nn.Linear(width, out_features), nn.GELU(), nn.Linear(out_features, out_features))
