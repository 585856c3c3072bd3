"""Cutting a video into segments where its frames change most."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def frame_similarity(vectors: Tensor) -> Tensor:
    """Return the cosine (T - 1,) float32 of each frame's vector (T, D) with the next one's."""
    unit = F.normalize(vectors.float(), dim=-1)
    return (unit[1:] * unit[:-1]).sum(-1)


def segment_lengths(similarity: Tensor, at_least: int, threshold: float) -> Tensor:
    """Cut where neighbouring frames are least alike: the lengths (S,) int64 on the CPU; their sum is T.

    The `at_least` - 1 least alike pairs are cut (the first of equals), and all those below the threshold. There cannot
    be more segments than frames. Waits for the device.

    Args:
        similarity: (T - 1,) of each frame with the next one.
        at_least: Segments wanted, 1 or more.
        threshold: Pairs below it are cut.
    """
    similarity = similarity.cpu()
    is_cut = similarity < threshold
    is_cut[similarity.argsort(stable=True)[: at_least - 1]] = True
    ends = F.pad(is_cut.nonzero().flatten() + 1, (1, 1))
    ends[-1] = len(similarity) + 1
    return ends.diff()


def segment_of_frames(lengths: Tensor) -> Tensor:
    """Return the segment (T,) int64 of every frame for the lengths (S,) of segments."""
    return torch.repeat_interleave(torch.arange(len(lengths)), lengths)
