"""Cosines between all nested nodes of a video's quadtrees, within a frame and from frame to frame."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from stgridpool.algorithms.partner_cosines import row_products
from stgridpool.compressors.sttm.quadtree import Quadtree

_CHUNK_BYTES = {"cpu": 2**22, "cuda": 2**28}  # small enough for a CPU's cache, large enough to keep a GPU busy
_SMALLEST_NORM = 1e-8


class NodeSimilarity(NamedTuple):
    """Cosines of node features, -1 to 1, float32; -1 where one is undefined because a sum overflows.

    Letters: T frames, L levels and S places of a `Quadtree`. A node's feature is the mean of its children's.
    """

    earlier: Tensor
    """(T, L, S), between a node of frame t and its ancestor at each level in frame t - 1, or the same node there."""
    same: Tensor
    """(T, L, S), between a node of frame t and its ancestor at each level in frame t."""
    later: Tensor
    """(T, L, S), between a node of frame t and its ancestor at each level in frame t + 1."""
    corner: Tensor
    """(T, S), between a node and the top left node one level below it, in the same frame."""


@torch.no_grad()
def node_similarity(tokens: Tensor, tree: Quadtree, num_heads: int = 1) -> NodeSimilarity:
    """Compute the cosines between nested nodes of `tokens` (T, H, W, D).

    Each is the mean of the cosines of `num_heads` equal parts of D. All of them follow from the dot products between
    tokens and their own ancestors, by the same means over children that make the features; they cost O(T*H*W*D*L).
    Entries for ancestors or frames that do not exist are arbitrary.
    """
    frames, levels, places = tokens.shape[0], len(tree.sizes), tree.starts[-1]
    rows = tokens.reshape(frames, -1, tokens.shape[3])
    dots = tokens.new_zeros(3, levels, frames, num_heads, places, dtype=torch.float32)
    corner = tokens.new_zeros(frames, num_heads, places, dtype=torch.float32)
    chunk = max(1, _CHUNK_BYTES.get(tokens.device.type, 2**28) // (4 * len(tree.cells) * rows.shape[2]))
    buffers = rows.new_empty(2, min(chunk, frames), len(tree.cells), rows.shape[2])
    last: list[Tensor] = []  # features of the last frame before the chunk
    for start in range(0, frames, chunk):
        part = rows[start : start + chunk]
        stop, buffer = start + len(part), buffers[start // chunk % 2, : len(part)]
        features = _features(torch.index_select(part, 1, tree.cells, out=buffer).float(), tree)
        _compare_within(features, tree, dots[1, :, start:stop], corner[start:stop])
        if last:
            _compare(last, [feature[:1] for feature in features], tree, dots[:, :, start - 1 : start + 1])
        if len(part) > 1:
            earlier, later = ([feature[ends] for feature in features] for ends in (slice(0, -1), slice(1, None)))
            _compare(earlier, later, tree, dots[:, :, start:stop])
        last = [feature[-1:] for feature in features]
    for level in range(levels - 1, 0, -1):  # the dot product with a mean is the mean of dot products
        tree.level(dots[:, :level], level - 1).copy_(tree.pooled(tree.level(dots[:, :level], level), level))
    return _cosines(dots, corner, tree)


def _features(leaves: Tensor, tree: Quadtree) -> list[Tensor]:
    """Compute the features of every level (f, n, D), roots first, from those of the leaves."""
    features = [leaves]
    for level in range(len(tree.sizes) - 1, 0, -1):
        shares = tree.level(tree.share, level).view(-1, 1, 4)
        features.insert(0, torch.matmul(shares, features[0].unflatten(1, (-1, 4))).squeeze(2))
    return features


def _dots(nodes: Tensor, ancestors: Tensor, num_heads: int) -> Tensor:
    """Multiply `nodes` (f, n * k, D) with their `ancestors` (f, n, D), of k nodes each: (f, heads, n * k)."""
    own = nodes.unflatten(1, (ancestors.shape[1], -1)).unflatten(3, (num_heads, -1))
    theirs = ancestors.unflatten(2, (num_heads, -1))
    if nodes.shape == ancestors.shape:  # einsum would multiply matrices of one row, which takes three times as long
        return row_products(own.flatten(0, -2), theirs.flatten(0, -2)).view(theirs.shape[:-1]).transpose(1, 2)
    return torch.einsum("fnkhd,fnhd->fhnk", own, theirs).flatten(2)


def _compare_within(features: list[Tensor], tree: Quadtree, dots: Tensor, corner: Tensor) -> None:
    """Write the dot products of leaves within f frames to `dots` (L, f, heads, S), and `corner` (f, heads, S)."""
    num_heads, leaf_level = corner.shape[1], len(features) - 1
    for level, feature in enumerate(features):
        tree.level(dots[level], leaf_level).copy_(_dots(features[-1], feature, num_heads))
    for level, (feature, below) in enumerate(pairwise(features)):
        tree.level(corner, level).copy_(_dots(feature, below[:, :1], num_heads))


def _compare(before: list[Tensor], after: list[Tensor], tree: Quadtree, dots: Tensor) -> None:
    """Write the dot products of leaves in f frames with nodes in the next f to `dots` (3, L, f + 1, heads, S)."""
    num_heads, leaf_level = dots.shape[3], len(before) - 1
    leaves = tree.level(dots, leaf_level)
    for level, (old, new) in enumerate(zip(before, after, strict=True)):
        later = _dots(before[-1], new, num_heads)
        leaves[0, level, 1:] = later if level == leaf_level else _dots(after[-1], old, num_heads)
        leaves[2, level, :-1] = later


def _cosines(dots: Tensor, corner: Tensor, tree: Quadtree) -> NodeSimilarity:
    """Divide `dots` (3, L, T, heads, S) and `corner` (T, heads, S) by the norms, and take the mean over heads."""
    squares = [tree.level(dots[1, level], level) for level in range(len(tree.sizes))]
    norms = torch.cat(squares, dim=-1).clamp(min=0).sqrt().clamp(min=_SMALLEST_NORM)  # (T, heads, S)

    def cosine(shift: int) -> Tensor:
        of_ancestors = norms.roll(1 - shift, dims=0)[..., tree.ancestors]  # (T, heads, L, S)
        return _defined(dots[shift].permute(1, 2, 0, 3) / (norms.unsqueeze(2) * of_ancestors)).mean(dim=1)

    to_corner = _defined(corner / (norms * norms[..., tree.corners])).mean(dim=1)
    return NodeSimilarity(cosine(0), cosine(1), cosine(2), to_corner)


def _defined(cosines: Tensor) -> Tensor:
    return cosines.nan_to_num(nan=-1.0).clamp(-1, 1)
