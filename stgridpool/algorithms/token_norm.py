"""Norms of tokens, the measure of importance in norm-based pooling."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from stgridpool.algorithms.blocks_of_rows import on_cpu, rows_at_a_time
from stgridpool.options import number


def norm_order(value: Any) -> float:
    """Return the order of a norm that an option names, 0.25 to 64, or infinity (in JSON "inf").

    Beyond this range, powers of channels or of their number overflow float32.

    Raises:
        ValueError: If it is something else.
    """
    return math.inf if value in (math.inf, "inf") else number("norm_order (or inf)", value, 0.25, 64)


def token_norms(tokens: Tensor, order: float) -> Tensor:
    """Compute the generalised mean of the absolute channels, ``||x||_p / D^(1/p)``: (..., D) to (...) float32.

    Norms are computed in float32 for every dtype but float64. Norms beyond the range of float32 become its largest
    number, so that finite tokens have finite norms.

    Args:
        tokens: Of any floating dtype; no gradient flows through the norms.
        order: Order p of the norm, above 0; infinity takes the largest channel.

    Source: ST-GridPool (ICLR 2026), norm-based spatial pooling.
    """
    tokens = tokens.detach()
    width = tokens.shape[-1]
    if not on_cpu(tokens) or tokens.dtype in (torch.float32, torch.float64):
        wide = tokens.dtype if tokens.dtype == torch.float64 else torch.float32
        norms: Tensor = torch.linalg.vector_norm(tokens, order, dim=-1, dtype=wide)
    else:
        norms = _chunked_norms(tokens.reshape(-1, width), order).view(tokens.shape[:-1])
    mean = norms.float() if math.isinf(order) else norms.float() * math.pow(width, -1 / order)
    return mean.clamp_(max=torch.finfo(torch.float32).max)


def _chunked_norms(rows: Tensor, order: float) -> Tensor:
    """Compute the norms of half-precision `rows` (S, D) on the CPU in chunks, without a float32 copy of all rows."""
    norms = rows.new_empty(rows.shape[0], dtype=torch.float32)
    size = rows_at_a_time(rows)
    wide = rows.new_empty(min(size, rows.shape[0]), rows.shape[1], dtype=torch.float32)
    for narrow, out in zip(rows.split(size), norms.split(size), strict=True):
        chunk = wide[: narrow.shape[0]].copy_(narrow)
        torch.linalg.vector_norm(chunk, order, dim=-1, out=out)
    return norms
