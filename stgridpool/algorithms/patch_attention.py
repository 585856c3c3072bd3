"""Attention between the patches of a vision tower, computed from queries and keys with bounded memory.

Letters: B images, L tokens of the tower per image, d width of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK_BYTES = 2**27
"""Maximum bytes of attention weights held at a time: those of four images of 27x27 patches and 16 heads."""
CPU_BLOCK_BYTES = 2**21
"""The same on a CPU, where larger blocks leave its caches and take up to twice as long."""


def join_heads(heads: Tensor) -> Tensor:
    """Join heads (B, heads, L, d) into one of full width (B, 1, L, heads * d)."""
    return heads.transpose(1, 2).flatten(2)[:, None]


def attention_received(queries: Tensor, keys: Tensor, scale: float, block_bytes: int | None = None) -> Tensor:
    """Average the attention that each token receives over heads and queries.

    As in eager attention, products are computed in the dtype of the queries and the softmax in float32. Only a block of
    weights exists at a time.

    Args:
        queries: (B, heads, L, d).
        keys: (B, heads, L, d).
        scale: Factor of the products.
        block_bytes: Maximum bytes of a block in float32, which holds at least one row of weights; None for
            `BLOCK_BYTES`, or `CPU_BLOCK_BYTES` on a CPU.

    Returns:
        (B, L) float32; each image's sum is 1.
    """
    if block_bytes is None:
        block_bytes = CPU_BLOCK_BYTES if queries.device.type == "cpu" else BLOCK_BYTES
    num_heads, length = queries.shape[1:3]
    flat_queries, flat_keys = queries.flatten(0, 1) * scale, keys.flatten(0, 1).mT  # (B * heads, L, d), (.., d, L)
    rows = max(1, block_bytes // (4 * length))
    head_step, query_step = max(1, rows // length), min(length, rows)
    received = torch.zeros(len(flat_queries), length, device=queries.device)
    for head in range(0, len(flat_queries), head_step):
        heads = slice(head, head + head_step)
        for query in range(0, length, query_step):
            scores = torch.bmm(flat_queries[heads, query : query + query_step], flat_keys[heads])
            received[heads] += scores.softmax(-1, dtype=torch.float32).sum(1)
    of_heads: Tensor = received.unflatten(0, (-1, num_heads))
    return of_heads.mean(1) / length


def first_token_attention(queries: Tensor, keys: Tensor, scale: float) -> Tensor:
    """Average the attention of the first token to each token over heads.

    Args:
        queries: (B, heads, L, d).
        keys: (B, heads, L, d).
        scale: Factor of the products.

    Returns:
        (B, L) float32; each image's sum is 1.
    """
    scores = (queries[:, :, :1] * scale) @ keys.mT  # (B, heads, 1, L)
    return scores.softmax(-1, dtype=torch.float32).mean(1).squeeze(1)
