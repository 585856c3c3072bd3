"""Connected components of graphs in sets of tokens.

Letters: K sets, R members of the largest.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stgridpool.algorithms.sets import Sets
from stgridpool.plan import Plan

_BLOCK = 2**24
"""Most entries of a graph that are looked at at a time."""


def components(joined: Tensor) -> Tensor:
    """Label the members of each connected component with the first of them, (K, R) int64.

    In each round all members take the smallest label among their neighbours and hand it on to the one that their old
    label names. There are about as many rounds as the logarithm of the longest path. Waits for the device.

    Args:
        joined: (K, R, R) bool, symmetric, which members are neighbours.
    """
    label = torch.arange(joined.shape[1], dtype=torch.int32, device=joined.device).expand(joined.shape[:2])
    rows = max(1, _BLOCK // max(1, joined.shape[0] * joined.shape[1]))
    while True:
        of_neighbours = [label[:, None].where(block, joined.shape[1]).amin(2) for block in joined.split(rows, dim=1)]
        smallest = torch.minimum(torch.cat(of_neighbours, 1), label)
        merged = smallest.scatter_reduce(1, label.long(), smallest, "amin")
        merged = merged.gather(1, merged.long())
        if torch.equal(merged, label):
            return label.long()
        label = merged


def count_components(joined: Tensor, is_there: Tensor) -> Tensor:
    """Count the connected components of all sets together, () int64.

    Args:
        joined: (K, R, R) bool, see `components`.
        is_there: (K, R) bool, whether there is a member at that place.
    """
    label = components(joined)
    return ((label == torch.arange(label.shape[1], device=label.device)) & is_there).sum()


def components_of_edges(first: Tensor, second: Tensor, count: int) -> Tensor:
    """Label the members of each connected component with the first of them, (N,) int64; waits for the device.

    Args:
        first: (E,) int64, one end of each edge.
        second: (E,) int64, the other end.
        count: N.
    """
    label = torch.arange(count, device=first.device)
    while True:
        smaller = torch.minimum(label[first], label[second])
        merged = label
        for target in (label[first], label[second], first, second):
            merged = merged.scatter_reduce(0, target, smaller, "amin")
        merged = merged[merged]
        if torch.equal(merged, label):
            return label
        label = merged


def merge_components(joined: Tensor, sets: Sets) -> Plan:
    """Plan that averages each connected component.

    The mean takes the place of the member with most neighbours (the first of equals); so they are in that order.

    Args:
        joined: (K, R, R) bool, symmetric, which members are neighbours; nobody is a neighbour of what is not there.
        sets: Of all tokens, each in one set.
    """
    label, width = components(joined), joined.shape[1]
    places = torch.arange(width, device=joined.device)
    key = joined.sum(2) * width + (width - 1 - places)
    best = torch.zeros_like(key).scatter_reduce(1, label, key, "amax")
    chosen = sets.index.gather(1, width - 1 - best.gather(1, label) % width)
    of_token = torch.zeros(int(sets.sizes.sum()), dtype=torch.int64, device=joined.device)
    of_token[sets.index[sets.is_there]] = chosen[sets.is_there]
    anchor, group = of_token.unique(return_inverse=True)
    return Plan.merge(group, anchor, drops=False)
