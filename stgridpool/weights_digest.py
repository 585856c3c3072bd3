"""Digests that identify the weights of a module."""

from __future__ import annotations

import hashlib

import torch
from torch import nn


def weights_digest(module: nn.Module) -> str | None:
    """Compute the hex SHA-256 of the names, dtypes, shapes and values of all weights; None if some are offloaded."""
    digest = hashlib.sha256()
    for name, weights in sorted(module.state_dict().items()):
        if weights.is_meta:
            return None
        digest.update(f"{name} {weights.dtype} {tuple(weights.shape)}".encode())
        digest.update(tensor_bytes(weights))
    return digest.hexdigest()


def tensor_bytes(tensor: torch.Tensor) -> memoryview:
    """Return the bytes of a tensor's numbers in row-major order."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
