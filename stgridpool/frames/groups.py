"""Pooling over time: every new frame is a weighted sum of frames, each under one pattern."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch.nn import functional as F

from stgridpool.frames.layout import lay_out
from stgridpool.frames.patterns import FramePattern
from stgridpool.plan import Plan, Shape
from stgridpool.rows import Rows


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def even_groups(num_frames: int, num_groups: int) -> Rows:
    """Mean over each of `num_groups` runs of frames; group i begins at frame ``floor(i T / num_groups)``.

    Args:
        num_frames: T.
        num_groups: 1 to T.
    """
    return _means(torch.arange(num_groups) * num_frames // num_groups, num_frames)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def groups_of(size: int, num_frames: int) -> Rows:
    """Mean over each run of `size` frames, or of other things in a row; the last one may be shorter."""
    return _means(torch.arange(0, num_frames, size), num_frames)


def _means(starts: torch.Tensor, num_frames: int) -> Rows:
    offsets = F.pad(starts, (0, 1), value=num_frames)
    sizes = offsets.diff()
    return Rows(torch.arange(num_frames), offsets, (1 / sizes).repeat_interleave(sizes))


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def pool_over_time(groups: Rows, pattern: FramePattern, shape: Shape) -> Plan:
    """Lay `pattern` over every frame, and then pool frames; cached, on the CPU. For the arguments see `over_time`."""
    return over_time(groups, pattern, shape)


def over_time(groups: Rows, pattern: FramePattern, shape: Shape) -> Plan:
    """Lay `pattern` over every frame, and then pool frames.

    Args:
        groups: T' rows over T frames, none of them empty.
        pattern: Over the H*W tokens of one frame.
        shape: (T, H, W) of the source tokens.

    Returns:
        The plan, on the device of `groups`.
    """
    device, area, count = groups.sources.device, len(pattern.rows), len(groups)
    laid = lay_out(pattern, shape, device)
    repeated = groups.take(torch.arange(count, device=device).repeat_interleave(area))
    place = torch.arange(area, device=device).repeat(count)[repeated.row_of_entry()]
    rows = repeated.moved(repeated.sources * area + place).times(laid.rows)
    first = groups.sources[groups.offsets[:-1]]
    anchor = (first[:, None] * shape[1] * shape[2] + pattern.anchor.to(device)).flatten()
    return Plan(rows, laid.num_sources, anchor, shape=(count, *pattern.size))
