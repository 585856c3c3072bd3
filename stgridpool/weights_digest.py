"""Digests of weights: a module with other weights has another one."""

from __future__ import annotations

import hashlib

import torch
from torch import nn


def weights_digest(module: nn.Module) -> str | None:
    """Digest all names, shapes and values of a module's weights; None where some are offloaded."""
    digest = hashlib.sha256()
    for name, weights in sorted(module.state_dict().items()):
        if weights.is_meta:
            return None
        digest.update(f"{name} {weights.dtype} {tuple(weights.shape)}".encode())
        digest.update(tensor_bytes(weights))
    return digest.hexdigest()


def tensor_bytes(tensor: torch.Tensor) -> memoryview:
    """Return the numbers of a tensor, as they lie in memory."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
