"""How alike the frames of a video are, place by place."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from stgridpool.algorithms.blocks_of_rows import rows_at_a_time


def frame_cosines(maps: Tensor) -> Tensor:
    """Return the mean over places of the cosines of any two frames there, (T, T) float32; the maps are (T, N, D).

    A token of zeros has cosine 0 with all. Only some places are held in float32 at a time.
    """
    frames, places, _ = maps.shape
    total = maps.new_zeros(frames, frames, dtype=torch.float32)
    for block in maps.split(max(1, rows_at_a_time(maps) // frames), dim=1):
        unit = F.normalize(block.float(), dim=-1).flatten(1)
        total += unit @ unit.T
    return total / places
