"""Choosing members of a set that are far from each other, one after the other: farthest-point sampling.

Letters: K sets, R members of the largest, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def cosine_distances(features: Tensor, is_there: Tensor) -> Tensor:
    """Return one minus the cosine between the members of each set, (K, R, R) float32.

    The diagonal is infinite, and so are rows of places without a member: nobody's nearest neighbour is there.

    Args:
        features: (K, R, D) of any floating dtype.
        is_there: (K, R) bool, whether there is a member.
    """
    unit = F.normalize(features.float(), dim=-1)
    distances = (unit @ unit.mT).neg_().add_(1)
    distances.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    return distances.masked_fill_(~is_there[:, :, None], torch.inf)


def farthest_first(distances: Tensor, is_there: Tensor, count: int, again: bool = False) -> Tensor:
    """Choose members of each set, (K, count) int64, in the order of the choices; ties go to the first.

    First comes the member that is farthest from its nearest neighbour, then always the one whose nearest neighbour
    among those chosen is farthest. Only the choices follow one another; all sets choose at once. What comes after the
    last member of a set means nothing.

    Args:
        distances: (K, R, R) from the member in the row to the one in the column, see `cosine_distances`.
        is_there: (K, R) bool, whether there is a member.
        count: Choices in each set, 1 or more.
        again: Whether what was chosen is at distance 0 from then on, so that it is chosen again before what is at a
            negative distance.
    """
    nearest = distances.amin(1).masked_fill(~is_there, -torch.inf)
    sets = torch.arange(len(distances), device=distances.device)
    chosen = [nearest.argmax(1)]
    nearest = torch.full_like(nearest, torch.inf).masked_fill_(~is_there, -torch.inf)
    for _ in range(count - 1):
        own = 0.0 if again else -torch.inf
        nearest = torch.minimum(nearest, distances[sets, chosen[-1]]).scatter_(1, chosen[-1][:, None], own)
        chosen.append(nearest.argmax(1))
    return torch.stack(chosen, dim=1)
