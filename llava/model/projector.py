"""The projector: from vision features to embeddings of the language model."""

import re

from torch import nn


def build_projector(projector_type: str, in_features: int, out_features: int) -> nn.Module:
    """Build the projector of a checkpoint; its parameter names match the checkpoint.

    Args:
        projector_type: `linear`, `identity`, or `mlpNx_gelu`: N linear layers with exact GELU between them.
        in_features: Width of the vision features.
        out_features: Width of the language model.

    Raises:
        ValueError: If `projector_type` is none of these.
    """
    if projector_type == "identity":
        return nn.Identity()
    if projector_type == "linear":
        return nn.Linear(in_features, out_features)
    match = re.fullmatch(r"mlp(\d+)x_gelu", projector_type)
    if match is None:
        raise ValueError(f"mm_projector_type must be linear, identity or mlpNx_gelu, got {projector_type!r}")
    layers: list[nn.Module] = [nn.Linear(in_features, out_features)]
    for _ in range(int(match.group(1)) - 1):
        layers += [nn.GELU(), nn.Linear(out_features, out_features)]
    return nn.Sequential(*layers)
