"""Windows of frames in which many places stay the same.

Letters: T frames of N places, S windows.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from stgridpool.algorithms.segments import segment_of_frames


def window_lengths(stays: Tensor) -> Tensor:
    """Cut a video so that as many tokens as possible repeat the first frame of their window.

    A place that stays the same through a window of n frames saves n - 1 tokens. Of equal partitions the one whose last
    windows are shorter is taken.

    Args:
        stays: (T - 1, N) bool, which places stay the same from each frame to the next.

    Returns:
        (S,) int64 on the CPU, the frames of each window.
    """
    frames = len(stays) + 1
    lasting = _lasting(stays).cpu()
    counts = torch.zeros(frames, frames + 1, dtype=torch.int64)
    counts.scatter_add_(1, lasting, torch.ones_like(lasting))
    counts = counts.flip(1).cumsum(1).flip(1)[:, :frames]  # [end, n]: places that stay the same through n steps
    gains = counts * torch.arange(frames)
    best, starts = torch.zeros(frames + 1, dtype=torch.int64), torch.zeros(frames, dtype=torch.int64)
    for end in range(frames):  # one after the other: a partition continues the best one of fewer frames
        steps = (best[: end + 1].flip(0) + gains[end, : end + 1]).argmax()
        best[end + 1] = best[end - steps] + gains[end, steps]
        starts[end] = end - steps
    cuts = [frames]
    while cuts[-1]:
        cuts.append(int(starts[cuts[-1] - 1]))
    return torch.tensor(cuts[::-1]).diff()


def _lasting(stays: Tensor) -> Tensor:
    """Return through how many steps up to each frame a place has stayed the same, (T, N) int64."""
    changed = F.pad(~stays, (0, 0, 1, 0), value=True)
    frame = torch.arange(len(changed), device=stays.device)[:, None].expand(changed.shape)
    return frame - frame.where(changed, 0).cummax(0).values


def weakest_similarity(similarity: Tensor, lengths: Tensor) -> Tensor:
    """Return how alike each place is to itself where it changes most in a window, (S, N); -inf in one of one frame.

    Args:
        similarity: (T - 1, N), of each place from each frame to the next.
        lengths: (S,) int64 on the CPU, frames of each window.
    """
    window = segment_of_frames(lengths).to(similarity.device)
    is_inside = window[1:] == window[:-1]
    weakest = torch.full((len(lengths), similarity.shape[1]), torch.inf, device=similarity.device)
    index = window[1:][is_inside][:, None].expand(-1, similarity.shape[1])
    weakest = weakest.scatter_reduce(0, index, similarity[is_inside], "amin")
    return weakest.masked_fill((lengths == 1).to(weakest.device)[:, None], -torch.inf)
