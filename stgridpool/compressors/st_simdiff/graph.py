"""The graph of like neighbours in space and time, and which tokens of its components can go.

Letters: N tokens, E edges, C components of two members or more, M their members, D width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from stgridpool.algorithms.blocks_of_rows import rows_at_a_time
from stgridpool.algorithms.components import components_of_edges
from stgridpool.algorithms.partner_cosines import cosines_in_frames

DIRECTIONS = ("time", "right", "below")
AXES = {"time": 0, "right": 2, "below": 1}
"""Of feature maps (T, H, W, D)."""


class Graph(NamedTuple):
    """Components of like tokens, and tokens that are new."""

    label: Tensor
    """(N,) int64, the first member of the component of each token; -1 without any edge."""
    is_event: Tensor
    """(N,) bool, whether a token is unlike the one before it on its place."""


class Members(NamedTuple):
    """The members of components: the best component first, and in each the member to go first."""

    token: Tensor
    """(M,) int64."""
    rank: Tensor
    """(M,) int64, its place in the order of its component."""
    size: Tensor
    """(M,) int64, members of its component."""


def like_neighbours(maps: Tensor, similarity: float, event: float, directions: tuple[str, ...]) -> Graph:
    """Join tokens that are alike to neighbours, and find those that are unlike the one before.

    Args:
        maps: (T, H, W, D).
        similarity: Smallest cosine of tokens joined over time; tokens side by side must be above it.
        event: Cosine with the token before below which one is new.
        directions: Some of `DIRECTIONS`, the neighbours that may be joined.
    """
    height, width = maps.shape[1:3]
    alike, steps = cosines_to_earlier(maps), {"time": height * width, "right": 1, "below": width}
    first, second = [torch.arange(0, device=maps.device)], [torch.arange(0, device=maps.device)]
    for name in directions:
        is_joined = alike[name] >= similarity if name == "time" else alike[name] > similarity
        second.append(is_joined.flatten().nonzero().flatten())
        first.append(second[-1] - steps[name])
    label = components_of_edges(torch.cat(first), torch.cat(second), maps[..., 0].numel())
    is_joined = torch.zeros_like(label, dtype=torch.bool).index_fill(0, torch.cat([*first, *second]), True)
    is_event = alike["time"] < event
    is_event[0] = False
    return Graph(label.where(is_joined, -1), is_event.flatten())


def cosines_to_earlier(maps: Tensor) -> dict[str, Tensor]:
    """Return the cosine of each token with that of which it is the neighbour in each of `DIRECTIONS`; -inf without one.

    Args:
        maps: (T, H, W, D) of any floating dtype.

    Returns:
        (T, H, W) float32 for each direction: of the token with the one a frame earlier, to its left, and above it.
    """
    frames, height, width, _ = maps.shape
    number = torch.arange(frames * height * width, device=maps.device).view(frames, height, width)
    partners = number.new_full((*number.shape, len(AXES)), -1)
    for index, axis in enumerate(AXES.values()):
        count = number.shape[axis] - 1
        partners[..., index].narrow(axis, 1, count).copy_(number.narrow(axis, 0, count))
    found = cosines_in_frames(maps.flatten(1, 2), partners.flatten(1, 2), frames_back=1, places_back=width)
    return {name: found[..., index].view(number.shape) for index, name in enumerate(AXES)}


def order_of_members(features: Tensor, graph: Graph, by_size: bool, later_first: bool) -> Members:
    """Order components by similarity of their members, and the members by that to all others.

    Args:
        features: (N, D) of any floating dtype.
        graph: Of these tokens.
        by_size: Whether the sum of all cosines is divided by twice the number of other members, not by the number of
            pairs: large components then come first.
        later_first: Whether of equally unlike members the later one goes first.
    """
    token = (graph.label >= 0).nonzero().flatten()
    _, component, size = graph.label[token].unique(return_inverse=True, return_counts=True)
    sums = torch.zeros(len(size), features.shape[1], device=features.device)
    blocks, parts = token.split(rows_at_a_time(features)), component.split(rows_at_a_time(features))
    for block, part in zip(blocks, parts, strict=True):
        sums.index_add_(0, part, F.normalize(features[block].float(), dim=-1))
    found = [  # the mean cosine of each with all members
        F.normalize(features[block].float(), dim=-1).mul_(sums[part]).sum(-1)
        for block, part in zip(blocks, parts, strict=True)
    ]
    weight = torch.cat(found) / size[component] if len(token) else sums.new_empty(0)
    total = sums.square().sum(-1)
    score = total / (2 * (size - 1)) if by_size else (total - size) / (size * (size - 1))
    place = score.argsort(descending=True, stable=True).argsort()  # of each component, the best first
    weight = weight.where(size[component] > 2, 0)  # those of two are equal but for rounding
    order = torch.arange(len(token), device=token.device)
    order = order.flip(0) if later_first else order
    order = order[weight[order].argsort(stable=True)]
    order = order[place[component[order]].argsort(stable=True)]
    sizes = size[component[order]]
    starts = F.pad((place[component[order]].diff() != 0), (1, 0), value=True)
    position = torch.arange(len(order), device=order.device)
    first = position.where(starts, 0).cummax(0).values if len(order) else position
    return Members(token[order], position - first, sizes)


def released_drops(members: Members, is_event: Tensor, limit: float, num_tokens: int) -> Tensor:
    """Return the tokens (n,) int64 to drop by the released rule.

    Of each component ``ceil(limit * size)`` members are to go, events apart. Where that many more would exceed `limit`
    of all tokens, nothing goes any more.

    Args:
        members: In order.
        is_event: (N,) bool.
        limit: Fraction of all tokens that may go.
        num_tokens: N.
    """
    quota = torch.ceil(members.size.double() * limit)
    goes = (members.rank < quota) & ~is_event[members.token]
    before = goes.cumsum(0) - goes.long()
    before = before.where(members.rank == 0, 0).cummax(0).values if len(before) else before  # of the whole component
    stops = (before + quota) / num_tokens > limit
    return members.token[goes & (stops.cumsum(0) == 0)]


def exact_drops(members: Members, is_event: Tensor, limit: float, most: int) -> Tensor:
    """Return at most `most` tokens (n,) int64 to drop: of each component as many as `limit` says, but not all."""
    quota = torch.minimum(torch.ceil(members.size.double() * limit), members.size - 1)
    goes = (members.rank < quota) & ~is_event[members.token]
    return members.token[goes][:most]
