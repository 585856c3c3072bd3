"""Bipartite soft matching: sets of tokens merged in pairs, round after round, until each set has the wanted size.

Letters: K sets, R members of the largest, A and B of the two halves, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from stgridpool.algorithms.blocks_of_rows import rows_at_a_time
from stgridpool.algorithms.equal_rows import first_equals
from stgridpool.algorithms.sets import Sets
from stgridpool.plan import to_device
from stgridpool.rows import sums_of_groups

MOST_ENTRIES = 1 << 24
"""Similarities that are in memory at a time: 64 MB."""


def merge_pairs(features: Tensor, sets: Sets, counts: Tensor, rest_first: bool = False) -> Tensor:
    """Merge the members of each set until `counts` remain; return the place (K, R) int64 that each one joins.

    Places are those in the set; a member that is joined keeps its own. Rounds follow one another, and there are about
    ``log2(size / count)`` of them; in a round all sets are merged at once.

    Args:
        features: (N, D) of any floating dtype, what must be alike in direction.
        sets: Whose members are merged.
        counts: (K,) int64 on the CPU, members to leave, 1 to the size of each set, or 0 of an empty one.
        rest_first: Whether, after each round, what remains of the first half, the most alike first, comes before the
            second half; otherwise all members stay in their order.
    """
    left, sizes = sets.sizes, sets.is_there.float()
    values = features[sets.index].float()  # (K, R, D)
    values /= values.abs().amax().clamp_min(torch.finfo(torch.float32).tiny)  # sums of merged tokens must not overflow
    places = torch.arange(values.shape[1], device=values.device).repeat(len(left), 1)  # (K, R) of the members left
    goes_to = places  # (K, R) of all members, among those left
    while bool((left > counts).any()):
        merges = torch.minimum(left - counts, left // 2)
        joins, rank = _proposals(values, left, merges)  # (K, R), (K, A)
        sizes, values = _joined(sizes, values, joins)
        stays = joins == torch.arange(joins.shape[1], device=joins.device)
        stays &= to_device(torch.arange(joins.shape[1]) < left[:, None], joins.device)
        left = left - merges
        width = int(left.max())
        key = stays.cumsum(1)
        if rest_first:
            key[:, ::2] = rank - rank.shape[1]  # negative, and so before the second half
        order = key.masked_fill(~stays, 2 * key.shape[1]).argsort(dim=1, stable=True)
        new_place = order.argsort(dim=1).clamp_max_(width - 1)  # of places without a member it means nothing
        order = order[:, :width]
        goes_to = new_place.gather(1, joins).gather(1, goes_to)
        values = values.gather(1, order[:, :, None].expand(-1, -1, values.shape[2]))
        sizes, places = sizes.gather(1, order), places.gather(1, order)
    return places.gather(1, goes_to)


def _proposals(values: Tensor, left: Tensor, merges: Tensor) -> tuple[Tensor, Tensor]:
    """Return the place (K, R) that every place joins: its own, or of `merges` (K,) in even places an odd one.

    The second tensor (K, A) holds the ranks of the even places, the most alike first.
    """
    unit = F.normalize(values, dim=-1)
    even, odd = unit[:, ::2], unit[:, 1::2]
    width = unit.shape[1]
    is_there = torch.arange(width) < left[:, None]
    is_there, merges = to_device((is_there, merges), values.device)
    partner = first_equals(odd).gather(1, _most_alike(even, odd, is_there[:, 1::2]))
    best = _cosines(unit, 2 * partner + 1)
    best = best.masked_fill(~is_there[:, ::2], -torch.inf)
    rank = best.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    own = torch.arange(0, width, 2, device=values.device)
    joins = torch.arange(width, device=values.device).repeat(len(values), 1)
    joins[:, ::2] = (2 * partner + 1).where(rank < merges[:, None], own)
    return joins, rank


def _most_alike(even: Tensor, odd: Tensor, is_there: Tensor) -> Tensor:
    """Return which of `odd` (K, B, D) has the largest cosine with each unit vector (K, A, D): its place, (K, A)."""
    size = max(1, MOST_ENTRIES // (len(odd) * odd.shape[1]))
    blocks = even.split(size, 1)
    return torch.cat([(one @ odd.mT).masked_fill_(~is_there[:, None], -torch.inf).argmax(2) for one in blocks], 1)


def _cosines(unit: Tensor, partner: Tensor) -> Tensor:
    """Return the cosines (K, A) of the unit vectors (K, R, D) at even places with their partners; 1 of equal ones."""
    rows, start = unit.flatten(0, 1), unit.shape[1] * torch.arange(len(unit), device=unit.device)[:, None]
    even = torch.arange(0, unit.shape[1], 2, device=unit.device) + start
    size, found = rows_at_a_time(rows), list[Tensor]()
    for places, others in zip(even.flatten().split(size), (partner + start).flatten().split(size), strict=True):
        one, other = rows[places], rows[others]
        found.append((one * other).sum(1).clamp_max_(1).masked_fill_((one == other).all(1), 1))
    return torch.cat(found).view(partner.shape)


def _joined(sizes: Tensor, values: Tensor, joins: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sizes (K, R) and means (K, R, D) after every place joined another; places left mean nothing."""
    total = torch.zeros_like(sizes).scatter_add(1, joins, sizes)  # whole numbers: exact in any order
    start = joins.shape[1] * torch.arange(len(joins), device=joins.device)[:, None]
    group = (joins + start).flatten()
    sums = sums_of_groups(values.flatten(0, 1), group, len(group), sizes.flatten())
    return total, sums.view_as(values) / total[:, :, None].clamp_min(1)
