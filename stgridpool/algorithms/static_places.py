"""Places of the frame that stay the same through a segment, and become one token there.

Letters: T frames of N places, S segments, S' of them with peaks, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stgridpool.algorithms.segments import segment_of_frames


def most_alike_places(strength: Tensor, lengths: Tensor, most_saved: int) -> Tensor:
    """Return the places (S, N) bool to count as static, so that no more than `most_saved` tokens are saved.

    A place of a segment of n frames saves n - 1 tokens. The weakest places are dropped first (the last of equals).

    Args:
        strength: (S, N), how much each place stays the same; -inf where it does not.
        lengths: (S,) int64 on the CPU, frames of each segment.
        most_saved: 0 or more.
    """
    is_static = strength > -torch.inf
    saved = (lengths - 1).to(strength.device)[:, None] * is_static
    order = strength.flatten().argsort(descending=True, stable=True)
    fits = saved.flatten()[order].cumsum(0) <= most_saved
    return is_static & torch.zeros_like(fits).scatter(0, order, fits).view_as(is_static)


def segment_means(maps: Tensor, lengths: Tensor, segments: Tensor) -> Tensor:
    """Return the means (S', N, D) float32 of features (T, N, D) over some `segments` (S',), at least one."""
    parts = maps.split(lengths.tolist())
    return torch.stack([parts[one].float().mean(0) for one in segments.tolist()])


def spread_over_frames(
    peak: Tensor, weight: Tensor, is_static: Tensor, lengths: Tensor, segments: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what goes into the peaks of static places, token by token: every frame of a segment alike.

    Args:
        peak: (S', N) int64, the place of the peak that each place joins.
        weight: (S', N), the weight of its mean over the segment.
        is_static: (S, N) bool.
        lengths: (S,) int64 on the CPU, frames of each segment.
        segments: (S',) int64 on the CPU, the segments that have peaks.

    Returns:
        Entries (E,): the token whose place the peak takes, in the first frame of the segment; a token that goes
        into it; and its weight.
    """
    device, area = is_static.device, is_static.shape[1]
    slot = torch.full_like(lengths, -1).index_copy(0, segments, torch.arange(len(segments)))
    starts, frames = (lengths.cumsum(0) - lengths).to(device), lengths.to(device)
    of_frame = segment_of_frames(lengths)
    segment, slot_of_frame = of_frame.to(device), slot[of_frame].to(device)
    source = (is_static[segment] & (slot_of_frame >= 0)[:, None]).flatten().nonzero().flatten()
    frame, place = source // area, source % area
    at = slot_of_frame[frame], place
    return starts[segment[frame]] * area + peak[at], source, weight[at] / frames[segment[frame]]
