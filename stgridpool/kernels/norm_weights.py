"""Weights of norm-based pooling in one pass: norms, and the softmax over every window.

One program holds all tokens of a window in registers, so that norms are never written to memory and no window is
unfolded.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_NUMBERS_PER_THREAD = 64
_THREADS_PER_WARP = 32
_LARGEST = torch.finfo(torch.float32).max
_MAXIMUM_ORDER = 0  # stands for infinity, which cannot be a constant of a kernel


def norm_weights(
    tokens: Tensor,
    index: Tensor,
    norm_order: float,
    scale: float,
    mosaics: Tensor | None = None,
    slots: Tensor | None = None,
) -> Tensor:
    """Compute the weights of P windows of K positions in every frame: (T, P, K) float32.

    Args:
        tokens: (T, H, W, D), bf16, fp16 or float32.
        index: (P, K) int64, the token of the frame at each position, H*W in the padding, or H*W + 1 outside.
        norm_order: Order p of the norm, above 0, or infinity.
        scale: Factor of the norms before the softmax.
        mosaics: (F*H*W, D), frames that replace others, or None.
        slots: (T,) int64, the mosaic that replaces each frame, or -1; required with `mosaics`.
    """
    frames, height, width, channels = tokens.shape
    windows, positions = index.shape
    weights = tokens.new_empty(frames, windows, positions, dtype=torch.float32)
    tile = (triton.next_power_of_2(positions), triton.next_power_of_2(channels))
    warps = tile[0] * tile[1] // _NUMBERS_PER_THREAD // _THREADS_PER_WARP
    with torch.cuda.device_of(tokens):
        _pool[(frames * windows,)](
            tokens.contiguous(),
            None if mosaics is None else mosaics.contiguous(),
            slots,
            index,
            weights,
            windows,
            positions,
            height * width,
            channels,
            scale,
            ORDER=_MAXIMUM_ORDER if norm_order == float("inf") else norm_order,
            LARGEST=_LARGEST,
            POSITIONS=tile[0],
            COLUMNS=tile[1],
            num_warps=max(1, warps),
            enable_fp_fusion=True,  # the present default; triton has announced another one
        )
    return weights


@triton.jit
def _norm(values, width, ORDER: tl.constexpr):
    """Compute the generalised mean of absolute values over the columns: (positions, columns) to (positions,)."""
    size = tl.abs(values)
    if ORDER == 0:
        norm = tl.max(size, axis=1)
    elif ORDER == 1:
        norm = tl.sum(size, axis=1) / width
    elif ORDER == 2:
        norm = tl.sqrt(tl.sum(size * size, axis=1) / width)
    else:
        norm = tl.exp2(tl.log2(tl.sum(tl.exp2(tl.log2(size) * ORDER), axis=1) / width) / ORDER)
    return norm


@triton.jit
def _pool(
    tokens,
    mosaics,
    slots,
    index,
    weights,
    windows,
    positions,
    area,
    width,
    scale,
    ORDER: tl.constexpr,
    LARGEST: tl.constexpr,
    POSITIONS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    frame = row // windows
    frame_tokens = tokens + frame * area * width
    if mosaics is not None:
        slot = tl.load(slots + frame)
        if slot >= 0:
            frame_tokens = mosaics + slot * area * width
    position = tl.arange(0, POSITIONS)
    column = tl.arange(0, COLUMNS)
    is_position = position < positions
    token = tl.load(index + row % windows * positions + position, mask=is_position, other=area + 1)
    is_value = (token < area)[:, None] & (column < width)[None, :]
    values = tl.load(frame_tokens + token[:, None] * width + column[None, :], mask=is_value, other=0.0)
    values = values.to(tl.float32)
    keep_nan: tl.constexpr = tl.PropagateNan.ALL
    norm = tl.minimum(_norm(values, width, ORDER), LARGEST, propagate_nan=keep_nan)
    score = tl.clamp(norm * scale, -LARGEST, LARGEST, propagate_nan=keep_nan)
    score = tl.where(token <= area, score, -float("inf"))
    share = tl.exp(score - tl.max(score, axis=0))
    weight = share / tl.sum(share, axis=0)
    tl.store(weights + row * positions + position, weight, mask=is_position)
