"""A video as quadtrees: which node stops the search at a threshold, and which nodes of neighbouring frames match."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from stgridpool.compressors.sttm.merge_forest import MergeForest
from stgridpool.compressors.sttm.node_similarity import NodeSimilarity
from stgridpool.compressors.sttm.quadtree import Quadtree
from stgridpool.compressors.sttm.temporal_merging import Matches

Join = Callable[[Matches, int], tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class QuadtreeVideo:
    """What is known of a video before any threshold, so that trying one takes a few operations on its cells.

    Letters: T frames of H x W cells, L levels and S places of the tree.

    Attributes:
        tree: the quadtree of every frame.
        stop_scores: (T, L, H*W) float32, the largest threshold at which the search stops at the node of a level that
            covers a cell; inf at the leaves.
        to_earlier, to_later: (T, L * S) float32, cosines of every node of a frame with its ancestors in the frame
            before and after.
    """

    tree: Quadtree
    stop_scores: Tensor
    to_earlier: Tensor
    to_later: Tensor

    @classmethod
    def of(cls, tree: Quadtree, within: NodeSimilarity, across: NodeSimilarity, as_released: bool) -> QuadtreeVideo:
        """From the similarities that the search `within` frames and the matches `across` frames go by.

        Args:
            tree: the quadtree of every frame.
            within: its `same` and `corner` are used.
            across: its `earlier` and `later` are used.
            as_released: with the quirks of STTM's released code, see `stop_scores`.
        """
        scores = stop_scores(tree, within, as_released)[:, tree.cell_nodes]
        return cls(tree, scores, across.earlier.flatten(1), across.later.flatten(1))

    def stop_levels(self, threshold: float | Tensor) -> Tensor:
        """The level (T, H*W) of the node that covers each cell: the first from the root at which the search stops."""
        return (self.stop_scores >= threshold).int().argmax(dim=1)

    def forest(self, spatial: float | Tensor, temporal: float | Tensor, join: Join | None) -> MergeForest:
        """What is merged at the two thresholds.

        Args:
            spatial: smallest cosine of a node and its children.
            temporal: smallest cosine of nodes of neighbouring frames.
            join: turns the matches above `temporal`, and the number of cells, into a forest of nodes and the similarity
                behind each of its links, -inf for roots; None merges nothing over time.
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

    def matches(self, levels: Tensor) -> Matches:
        """All pairs of nodes of neighbouring frames one of which covers the other, and their similarities.

        Nodes that overlap are nested, so each pair is found once, at the first cell of the finer of the two.
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
        """The first cell, counted through all frames, of the node at `levels` (T, H*W) that covers each cell."""
        frames, area = levels.shape
        return torch.arange(frames, device=levels.device)[:, None] * area + self._of_cells(self.tree.cell_heads, levels)

    @staticmethod
    def _of_cells(table: Tensor, levels: Tensor) -> Tensor:
        """From a `table` (L, H*W) each cell's entry at its level in `levels` (t, H*W): (t, H*W)."""
        return table.gather(0, levels)


def stop_scores(tree: Quadtree, similarity: NodeSimilarity, as_released: bool) -> Tensor:
    """(T, S) float32: the largest threshold at which the search stops at a node, inf at leaves.

    It stops where every child is similar enough. A node with one child is equal to it, so that the search goes on to
    the child (-inf). In the released code it stops there, and a node with fewer than four children is also compared
    with the top left node of the level below it, which fills up the empty places.
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
