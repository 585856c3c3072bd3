"""A video as quadtrees: at which nodes the search stops for a threshold, and which nodes of adjacent frames match."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from stgridpool.algorithms.threshold_search import counted_once
from stgridpool.compressors.sttm.merge_forest import MergeForest
from stgridpool.compressors.sttm.node_similarity import NodeSimilarity
from stgridpool.compressors.sttm.quadtree import Quadtree
from stgridpool.compressors.sttm.temporal_merging import Matches
from stgridpool.device_transfer import reading_is_free

Join = Callable[[Matches, int], tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class QuadtreeVideo:
    """The similarities in a video, computed before any threshold, so that trying one takes few operations on cells.

    Letters: T frames of H x W cells, L levels and S places of the tree.

    Attributes:
        tree: The quadtree of every frame.
        stop_scores: (T, L, H*W) float32, the largest threshold at which the search stops at the node that covers a
            cell at each level; inf at the leaves.
        to_earlier: (T, L * S) float32, cosines between every node of a frame and its ancestors in the frame before.
        to_later: (T, L * S) float32, cosines between every node of a frame and its ancestors in the next frame.
    """

    tree: Quadtree
    stop_scores: Tensor
    to_earlier: Tensor
    to_later: Tensor

    @classmethod
    def of(cls, tree: Quadtree, within: NodeSimilarity, across: NodeSimilarity, as_released: bool) -> QuadtreeVideo:
        """Prepare a video from the similarities within and across its frames.

        Args:
            tree: The quadtree of every frame.
            within: Similarities for the search within frames, `same` and `corner`.
            across: Similarities for matches across frames, `earlier` and `later`.
            as_released: Whether to reproduce the quirks of STTM's released code, see `stop_scores`.
        """
        scores = stop_scores(tree, within, as_released)[:, tree.cell_nodes]
        return cls(tree, scores, across.earlier.flatten(1), across.later.flatten(1))

    def stop_levels(self, threshold: float | Tensor) -> Tensor:
        """Find the level (T, H*W) of the node that covers each cell: the first from the root where the search stops."""
        return (self.stop_scores >= threshold).int().argmax(dim=1)

    def forest(self, spatial: float | Tensor, temporal: float | Tensor, join: Join | None) -> MergeForest:
        """Merge cells at the two thresholds.

        Args:
            spatial: Smallest cosine between a node and its children.
            temporal: Smallest cosine between nodes of adjacent frames.
            join: Turns the matches above `temporal`, and the number of cells, into a forest of nodes and the similarity
                of each of its links, -inf for roots; None merges nothing over time.
        """
        levels = self.stop_levels(spatial)
        heads = self._heads(levels).flatten()
        parents, strength = heads, self.stop_scores.gather(1, levels[:, None]).flatten() - spatial
        is_head = heads == torch.arange(len(heads), device=heads.device)
        if join is None:
            strength = strength.masked_fill(is_head, -torch.inf)
        else:
            followed, similarity = join(self.matches(levels).above(temporal), len(heads))
            parents = followed.where(is_head, heads)
            strength = (similarity - temporal).where(is_head, strength)
        shares = self._of_cells(self.tree.cell_shares, levels).flatten()
        return MergeForest(heads, parents, strength, shares, depth=len(levels))

    def counting(self, count: Callable[[Tensor], Tensor], offset: float) -> Callable[[Tensor], Tensor]:
        """Return `count`, a function of the spatial threshold, which counts no forest twice where reading is free.

        Args:
            count: Counts the trees of the forest.
            offset: By how much the spatial threshold exceeds the temporal one.
        """
        if not reading_is_free(self.stop_scores.device):
            return count
        return counted_once(
            count,
            lambda threshold: (self.stop_scores >= threshold).sum(),
            lambda threshold: (self.to_earlier >= threshold - offset).sum(),
            lambda threshold: (self.to_later >= threshold - offset).sum(),
        )

    def matches(self, levels: Tensor) -> Matches:
        """Find all pairs of nodes in adjacent frames in which one covers the other, and their similarities.

        Nodes that overlap are nested, so each pair is found exactly once, at the first cell of its finer node.
        """
        levels_before, levels_after = levels[:-1], levels[1:]  # (T - 1, H*W)
        finer = torch.maximum(levels_before, levels_after)
        cells = torch.arange(levels.shape[1], device=levels.device)
        is_pair = self._of_cells(self.tree.cell_heads, finer) == cells
        node = self._of_cells(self.tree.cell_nodes, finer)
        index = torch.minimum(levels_before, levels_after) * self.tree.starts[-1] + node
        forward, backward = self.to_later[:-1].gather(1, index), self.to_earlier[1:].gather(1, index)
        similarity = forward.where(levels_before >= levels_after, backward).masked_fill(~is_pair, -torch.inf)
        heads = self._heads(levels)
        return Matches(heads[:-1].flatten(), heads[1:].flatten(), similarity.flatten())

    def _heads(self, levels: Tensor) -> Tensor:
        """Return the first cell, numbered through all frames, of the node at `levels` (T, H*W) over each cell."""
        frames, area = levels.shape
        return torch.arange(frames, device=levels.device)[:, None] * area + self._of_cells(self.tree.cell_heads, levels)

    @staticmethod
    def _of_cells(table: Tensor, levels: Tensor) -> Tensor:
        """Look up each cell's entry of `table` (L, H*W) at its level in `levels` (t, H*W): (t, H*W)."""
        return table.gather(0, levels)


def stop_scores(tree: Quadtree, similarity: NodeSimilarity, as_released: bool) -> Tensor:
    """Compute the largest threshold at which the search stops at each node, (T, S) float32, inf at leaves.

    The search stops at a node if every child is similar enough to it. A node with one child equals the child, so the
    search continues at the child (-inf). In the released code it stops there, and a node with fewer than four children
    is also compared with the top left node one level below it, which fills the empty places.
    """
    scores = []
    for level in range(len(tree.sizes) - 1):
        is_child = tree.level(tree.is_node, level + 1).view(-1, 4)
        to_parent = tree.level(similarity.same[:, level], level + 1).unflatten(1, (-1, 4))
        score = to_parent.masked_fill(~is_child, torch.inf).amin(dim=2)  # (T, n)
        num_children = is_child.sum(dim=1)
        if as_released:
            corner = tree.level(similarity.corner, level)
            score = torch.where(num_children < 4, torch.minimum(score, corner), score)
        else:
            score = score.masked_fill(num_children == 1, -torch.inf)
        scores.append(score)
    leaves = similarity.corner.new_full((similarity.corner.shape[0], len(tree.cells)), torch.inf)
    return torch.cat([*scores, leaves], dim=1)
