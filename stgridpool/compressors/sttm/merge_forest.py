"""MergeForest: the cells of a video merged into trees, each of which becomes one token."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from stgridpool.plan import Plan


@dataclass(frozen=True, eq=False)
class MergeForest:
    """Links from every merged cell towards the cell whose place the merged token takes.

    Cells are numbered through all frames (t*H*W + y*W + x). The cells of a node link to its first cell, its head, and
    a head links to the head of the node into which its own is merged. Links lead to cells with smaller numbers; a root
    is its own parent.

    Attributes:
        heads: (cells,) int64, the first cell of the node that covers each cell.
        parents: (cells,) int64, the cell to which each cell links.
        strength: (cells,) float32, by how much the similarity of each link exceeds its threshold; -inf for roots.
        shares: (cells,) float32, the share of each cell in the feature of its node.
        depth: Upper bound of the number of links from a cell to its root.
    """

    heads: Tensor
    parents: Tensor
    strength: Tensor
    shares: Tensor
    depth: int

    def num_trees(self) -> Tensor:
        """Count the trees, each of which becomes a token, () int64."""
        return (self.parents == _cells(self.parents)).sum()

    def cut(self, count: int) -> MergeForest:
        """Cut the weakest links until there are exactly `count` trees; there must not be more before.

        Among links of equal strength, those of later cells are cut first. A cell that is cut off its head becomes a
        token of its own; a head keeps what is merged into it.
        """
        own = _cells(self.parents)
        strongest = self.strength.argsort(descending=True, stable=True)[: len(own) - count]
        parents = own.index_copy(0, strongest, self.parents[strongest])
        return replace(self, parents=parents, heads=own.where(parents == own, self.heads))

    def roots(self) -> Tensor:
        """Find the root of every cell, (cells,) int64."""
        roots = self.parents
        for _ in range(self.depth.bit_length()):
            roots = roots[roots]
        return roots

    def plan(self, weighted: bool) -> Plan:
        """Make a plan that turns every tree into a token at the place of its root.

        Args:
            weighted: Whether a token is the mean of its cells instead of the mean of its nodes.
        """
        roots = self.roots()
        weights = torch.ones_like(self.shares) if weighted else _normalised(self.shares, self.heads)
        weights = _normalised(weights, roots)
        is_root = roots == _cells(roots)
        return Plan.merge((is_root.cumsum(0) - 1)[roots], is_root.nonzero().flatten(), weights, drops=False)


def _cells(like: Tensor) -> Tensor:
    return torch.arange(len(like), device=like.device)


def _normalised(weights: Tensor, group: Tensor) -> Tensor:
    """Divide `weights` (cells,) by their sum in each `group` (cells,)."""
    return weights / torch.zeros_like(weights).scatter_add(0, group, weights)[group]
