"""Trees of tokens over time, and how they are merged until a budget is met.

Letters: T frames of N tokens, D width, L frames of a segment, S segments, C tokens that were chosen.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from stgridpool.algorithms.density_peaks import nearest_peaks, peak_scores, peaks, scaled_distances
from stgridpool.algorithms.segments import segment_of_frames
from stgridpool.budget import share_out
from stgridpool.plan import Plan
from stgridpool.rows import Rows, sums_of_groups
from stgridpool.scorer import highest_per_group

NEIGHBOURS = 7


class Trees(NamedTuple):
    """Which tokens became one."""

    root: Tensor
    """(T * N,) int64, the root of the tree that each token is in."""
    divisor: Tensor
    """(T * N,) float32, what the sum of the tree of each root is divided by."""


def link(unit: Tensor, is_free: Tensor, lengths: Tensor, shares: Tensor, threshold: float, is_released: bool) -> Trees:
    """Link tokens to the most similar one of the frame before, and follow the links.

    A segment keeps only its best links if all of them together would leave fewer tokens than its budget.

    Args:
        unit: (T, N, D) of length 1.
        is_free: (T, N) bool, the tokens that may be linked.
        lengths: (S,) int64 on the CPU, frames of each segment.
        shares: (T,) int64 on the CPU, the budget of each frame.
        threshold: Cosine above which tokens are linked.
        is_released: Whether one link more goes where links go, and trees are divided by one more than the children of
            their root.
    """
    frames, area = is_free.shape
    segment = segment_of_frames(lengths)
    similarity, parent = _links(unit, is_free, segment)
    similarity = similarity.where(similarity > threshold, -torch.inf)
    count = _sums((similarity > threshold).sum(1).cpu(), lengths)
    most = _sums(area - shares, lengths)
    quota = count.where(count <= most, (most - 1).clamp_min(0) if is_released else most)
    group = segment.to(unit.device).repeat_interleave(area)
    links = highest_per_group(similarity.flatten(), group, quota)
    is_linked = torch.zeros_like(is_free).flatten().index_fill(0, links, True).view_as(is_free)
    root = torch.arange(frames * area, device=unit.device)
    for frame in range(1, frames):  # one after the other: what a link leads to may itself be linked
        here = slice(frame * area, frame * area + area)
        root[here] = root[parent[frame]].where(is_linked[frame], root[here])
    members = torch.cat([parent.flatten()[links], root.unique()]) if is_released else root
    return Trees(root, torch.bincount(members, minlength=len(root)).float())


def _links(unit: Tensor, is_free: Tensor, segment: Tensor) -> tuple[Tensor, Tensor]:
    """Return how alike each token and the best one of the frame before are (T, N), -inf without one, and that one."""
    frames, area = is_free.shape
    similarity = torch.full_like(is_free, -torch.inf, dtype=torch.float32)
    parent = torch.arange(frames * area, device=unit.device).view(frames, area)
    if frames > 1:
        alike = (unit[1:] @ unit[:-1].mT).masked_fill_(~is_free[:-1, None], -torch.inf).max(2)
        is_inside = (segment[1:] == segment[:-1]).to(unit.device)[:, None]
        similarity[1:] = alike.values.masked_fill(~(is_inside & is_free[1:]), -torch.inf)
        parent = torch.cat([parent[:1], alike.indices + parent[:-1, :1]])
    return similarity, parent


def merge(
    maps: Tensor, chosen: Tensor, is_free: Tensor, trees: Trees, lengths: Tensor, quota: Tensor, is_released: bool
) -> Plan:
    """Merge the roots of each frame into density peaks, and put them beside the chosen tokens.

    Args:
        maps: (T, N, D).
        chosen: (C,) int64, tokens that stay as they are.
        is_free: (T, N) bool, tokens that are merged.
        trees: They are in these.
        lengths: (S,) int64 on the CPU, frames of each segment.
        quota: (T,) int64 on the CPU, peaks; those of a segment's frames are shared out again.
        is_released: Whether counts are rounded up, and the number of peaks bounds that of neighbours.
    """
    itself = torch.arange(is_free.numel(), device=maps.device)
    is_root = is_free & (trees.root == itself).view_as(is_free)
    parts = (counts.split(lengths.tolist()) for counts in (is_root.sum(1).cpu(), quota))
    counts = torch.cat([_num_peaks(roots, share, is_released) for roots, share in zip(*parts, strict=True)])
    centre = torch.full_like(itself, -1)
    if int(counts.max()):
        goes_to = _centres(maps, is_root, trees, counts, is_released)
        centre = goes_to[trees.root].where(is_free.flatten(), -1)
    source = (centre >= 0).nonzero().flatten()
    centres, row = centre[source].unique(return_inverse=True)
    root = trees.root[source]
    size = torch.bincount(row[root == source], minlength=len(centres))
    weights = torch.cat([torch.ones(len(chosen), device=maps.device), 1 / (trees.divisor[root] * size[row])])
    anchor, order = torch.cat([chosen, centres]).sort(stable=True)
    rank = order.argsort()
    rows = torch.cat([rank[: len(chosen)], rank[len(chosen) :][row]])
    return Plan(Rows.of_entries(rows, torch.cat([chosen, source]), weights, len(anchor)), len(itself), anchor)


def _centres(maps: Tensor, is_root: Tensor, trees: Trees, counts: Tensor, is_released: bool) -> Tensor:
    """Return the token (T * N,) int64 that each root joins; -1 for other tokens, and in frames without peaks."""
    flat = maps.flatten(0, 1).float()
    sums = sums_of_groups(flat, trees.root, len(flat))
    distances = scaled_distances((sums / trees.divisor.clamp_min(1)[:, None]).view(maps.shape), is_root)
    neighbours = counts.clamp(1, NEIGHBOURS) if is_released else NEIGHBOURS
    places, is_taken = peaks(peak_scores(distances, is_root, neighbours), counts)
    starts = torch.arange(len(maps), device=maps.device)[:, None] * maps.shape[1]
    tokens = places.gather(1, nearest_peaks(distances, places, is_taken)) + starts
    return tokens.where(is_root & is_taken[:, :1], -1).flatten()


def _num_peaks(roots: Tensor, quota: Tensor, is_released: bool) -> Tensor:
    """Return how many peaks each frame (L,) of a segment has that has these `roots` (L,)."""
    budget, total = int(quota.sum()), int(roots.sum())
    if total <= budget:
        return roots
    if is_released:
        return torch.tensor([math.ceil(count * (budget / total)) for count in roots.tolist()])
    return share_out(budget, roots, roots)


def _sums(counts: Tensor, lengths: Tensor) -> Tensor:
    """Sum counts (T,) over segments of lengths (S,): (S,)."""
    return torch.stack([part.sum() for part in counts.split(lengths.tolist())])
