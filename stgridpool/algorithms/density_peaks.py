"""Clustering by density peaks (DPC-kNN), in many sets at once.

A token is a centre if many are near it, and none that has more near it is near. Nothing is random here: where the
methods that use it add noise to densities, the first of equals counts as the denser.

Source: Rodriguez and Laio, Science 344 (2014); with nearest neighbours: Du, Ding and Jia, Knowledge-Based Systems 99
(2016).

Letters: K sets, R members of the largest, D width, C centres of the set that has most.
"""

from __future__ import annotations

import torch
from torch import Tensor

_LARGEST = 1e18
"""Features beyond it are taken for it, so that squares stay within float32."""


def scaled_distances(features: Tensor, is_there: Tensor) -> Tensor:
    """Return the Euclidean distances (K, R, R) float32 of the members of each set, divided by the root of D.

    Args:
        features: (K, R, D) of any floating dtype.
        is_there: (K, R) bool; distances from and to other places mean nothing.
    """
    values = features.float()
    scale = values.abs().amax().clamp_min(torch.finfo(torch.float32).tiny)
    values = (values / scale).masked_fill(~is_there[:, :, None], 0)
    values = values - values.sum(1, keepdim=True) / is_there.sum(1).clamp_min(1)[:, None, None]  # fewer digits cancel
    squares = values.square().sum(-1)
    distances = torch.baddbmm(squares[:, :, None] + squares[:, None], values, values.mT, alpha=-2).clamp_min_(0)
    distances.diagonal(dim1=1, dim2=2).zero_()
    return distances.div_(values.shape[2]).sqrt_().mul_(scale.clamp_max(_LARGEST))


def peak_scores(distances: Tensor, is_there: Tensor, neighbours: int | Tensor, first_is_denser: bool = True) -> Tensor:
    """Return the score of each member as a centre, (K, R) float32; -inf at places without a member.

    The score is the density, ``exp(-mean of squared distances to the nearest neighbours)``, times the distance to the
    nearest member of higher density; for the densest of all, times the largest distance of the set.

    Args:
        distances: (K, R, R), see `scaled_distances`.
        is_there: (K, R) bool, whether there is a member.
        neighbours: How many neighbours count, 1 or more, the member itself among them; at most the whole set. They may
            differ from set to set, (K,) int64.
        first_is_denser: Whether of equal densities the first counts as the higher; otherwise neither does, so that two
            members that are each other's nearest may both be centres.
    """
    exists = is_there[:, :, None] & is_there[:, None]
    from_others = distances.masked_fill(~exists, torch.inf)
    wanted = torch.as_tensor(neighbours).expand(len(distances))
    near = from_others.topk(min(int(wanted.max()), distances.shape[2]), dim=2, largest=False).values
    wanted = wanted.to(distances.device)[:, None]
    counts = (torch.arange(near.shape[2], device=near.device) < wanted)[:, None] & (near != torch.inf)
    count = torch.minimum(is_there.sum(1, keepdim=True), wanted).clamp_min(1)
    density = (-near.masked_fill(~counts, 0).square().sum(2) / count).exp()
    place = torch.arange(distances.shape[1], device=distances.device)
    denser = density[:, None] > density[:, :, None]
    if first_is_denser:
        denser |= (density[:, None] == density[:, :, None]) & (place < place[:, None])
    largest = distances.masked_fill(~exists, 0).amax((1, 2))[:, None]
    apart = torch.minimum(from_others.masked_fill(~denser, torch.inf).amin(2), largest)
    return (density * apart).masked_fill(~is_there, -torch.inf)


def peaks(scores: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Return the places (K, C) int64 of the members of highest score, best first, and which of them count (K, C) bool.

    Args:
        scores: (K, R).
        counts: (K,) int64 on the CPU, centres of each set, at most as many as it has members.
    """
    most = int(counts.max())
    is_taken = (torch.arange(most) < counts[:, None]).to(scores.device)
    return scores.argsort(dim=1, descending=True, stable=True)[:, :most], is_taken


def nearest_peaks(distances: Tensor, centres: Tensor, is_taken: Tensor) -> Tensor:
    """Return the nearest centre (K, R) int64 of each member, the first of equals; a centre is its own.

    Args:
        distances: (K, R, R).
        centres: (K, C) int64, places of the centres.
        is_taken: (K, C) bool, which of them count; one of every set that has members.
    """
    to_centre = distances.gather(2, centres[:, None].expand(-1, distances.shape[1], -1))
    goes_to = to_centre.masked_fill_(~is_taken[:, None], torch.inf).argmin(2)
    order = torch.arange(centres.shape[1], device=centres.device).expand_as(centres)
    own = torch.full_like(goes_to, -1).scatter_reduce(1, centres, order.where(is_taken, -1), "amax")
    return own.where(own >= 0, goes_to)
