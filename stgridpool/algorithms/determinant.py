"""Choosing the members of a set that a determinantal point process finds most probable, one after the other.

Letters: K sets, R members of the largest.
"""

from __future__ import annotations

import torch
from torch import Tensor

_SMALLEST = 1e-12


def largest_determinant(kernel: Tensor, is_there: Tensor, count: int) -> Tensor:
    """Choose members of each set, (K, count) int64, in the order of the choices; ties go to the first.

    Each choice is the member that enlarges the determinant of the kernel of those chosen most, found with one row of
    its Cholesky factor per choice. Where only rounding error remains, the first members follow. Only the choices
    follow one another; all sets choose at once. What comes after the last member of a set means nothing.

    Source: fast greedy maximum a posteriori inference (Chen et al., NeurIPS 2018), arXiv 1709.05135.

    Args:
        kernel: (K, R, R) float32, symmetric, without negative eigenvalues.
        is_there: (K, R) bool, whether there is a member.
        count: Choices in each set, 1 or more.
    """
    num_sets, width = is_there.shape
    sets = torch.arange(num_sets, device=kernel.device)
    factor = kernel.new_zeros(num_sets, count, width)
    gain = kernel.diagonal(dim1=1, dim2=2).masked_fill(~is_there, -torch.inf)
    chosen = []
    for step in range(count):
        best = gain.argmax(1)
        chosen.append(best)
        known = factor[:, :step]  # (K, step, R)
        own = known[sets, :, best]  # (K, step)
        row = kernel[sets, best] - (own[:, None] @ known).squeeze(1)
        size = gain.gather(1, best[:, None])
        row = (row / size.clamp_min(_SMALLEST).sqrt()).where(size > _SMALLEST, 0)
        factor[:, step] = row
        gain = (gain - row.square()).clamp_min(0).where(gain >= 0, -torch.inf).scatter_(1, best[:, None], -torch.inf)
    return torch.stack(chosen, dim=1)
