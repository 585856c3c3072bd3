"""Norm-based pooling in one pass: norms, the softmax over every window, and the pooled tokens.

Norms first and sums of rows afterwards read the tokens twice: with 2x2 windows that is 1 + 1 read and 1/4 written, so
at the full rate of the memory it reaches 1.25 / 2.25 = 56 % of what a copy of the same bytes does, before the first
launch is paid for. (64 frames of 27x27 bf16 tokens of width 3584 are 334 MB; no cache holds them between passes.)
Here one program keeps all tokens of one window in registers: they are read once, and the pooled token is written once.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_NUMBERS_PER_THREAD = 64
_THREADS_PER_WARP = 32
_LARGEST = torch.finfo(torch.float32).max
_MAXIMUM_ORDER = 0  # stands for infinity, which is no kernel constant


def pool_by_norm(
    tokens: Tensor,
    index: Tensor,
    norm_order: float,
    scale: float,
    mosaics: Tensor | None = None,
    slots: Tensor | None = None,
    with_pooled: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """The weights (T, P, K) float32 of P windows of K positions in every frame, and the pooled tokens (T*P, D).

    Args:
        tokens: (T, H, W, D), bf16, fp16 or float32.
        index: (P, K) int64: a token of the frame, or H*W for a position in the padding, or H*W + 1 for one outside.
        norm_order: p of the norm, above 0, or infinity.
        scale: factor of the norms before the softmax.
        mosaics: (F*H*W, D), what F of the frames are replaced by, or None.
        slots: (T,) int64, the mosaic that replaces each frame, or -1; needed with `mosaics`.
        with_pooled: whether the tokens are pooled; if not, None comes in their place.
    """
    frames, height, width, channels = tokens.shape
    windows, positions = index.shape
    weights = tokens.new_empty(frames, windows, positions, dtype=torch.float32)
    pooled = tokens.new_empty(frames * windows, channels) if with_pooled else None
    tile = (triton.next_power_of_2(positions), triton.next_power_of_2(channels))
    warps = tile[0] * tile[1] // _NUMBERS_PER_THREAD // _THREADS_PER_WARP
    with torch.cuda.device_of(tokens):
        _pool[(frames * windows,)](
            tokens.contiguous(),
            None if mosaics is None else mosaics.contiguous(),
            slots,
            index,
            weights,
            pooled,
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
            enable_fp_fusion=True,  # the default until now, which triton announces to change
        )
    return weights, pooled


@triton.jit
def _norm(values, width, ORDER: tl.constexpr):
    """Generalised mean of the absolute values over the columns: (positions, columns) to (positions,)."""
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
    pooled,
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
    if pooled is not None:
        weight = weight.to(tokens.dtype.element_ty).to(tl.float32)
        total = tl.sum(weight[:, None] * values, axis=0)
        tl.store(pooled + row * width + column, total.to(tokens.dtype.element_ty), mask=column < width)
