"""The cells of a video merged into trees, each of which becomes one token."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from stgridpool.plan import Plan


@dataclass(frozen=True, eq=False)
class MergeForest:
    """Links from every merged cell towards the cell whose place its token takes.

    Cells are counted through all frames (t*H*W + y*W + x). Those of one node link to its first cell, its head, and a
    head links to the head that its node is merged into. Links lead to smaller cells; a root is its own parent.

    Attributes:
        heads: (cells,) int64, the first cell of the node of each cell.
        parents: (cells,) int64.
        strength: (cells,) float32, by how much the similarity behind each link exceeds its threshold; -inf for roots.
        shares: (cells,) float32, the share of each cell in the feature of its node.
        depth: the largest number of links from a cell to its root, or more.
    """

    heads: Tensor
    parents: Tensor
    strength: Tensor
    shares: Tensor
    depth: int

    def num_trees(self) -> Tensor:
        """The number of tokens that are left, () int64."""
        return (self.parents == _cells(self.parents)).sum()

    def cut(self, count: int) -> MergeForest:
        """The weakest links cut until exactly `count` trees are left; there must not be more already.

        Of equally strong links those of later cells are cut first. A cell cut off its head is a token of its own; a
        head takes along what is merged into it.
        """
        own = _cells(self.parents)
        strongest = self.strength.argsort(descending=True, stable=True)[: len(own) - count]
        parents = own.index_copy(0, strongest, self.parents[strongest])
        return replace(self, parents=parents, heads=own.where(parents == own, self.heads))

    def roots(self) -> Tensor:
        """The root of every cell, (cells,) int64."""
        roots = self.parents
        for _ in range(self.depth.bit_length()):
            roots = roots[roots]
        return roots

    def plan(self, weighted: bool) -> Plan:
        """Make a token of every tree, on the place of its root.

        Args:
            weighted: Whether a token is the mean of its cells; else of its nodes, each as much as another.
        """
        roots = self.roots()
        weights = torch.ones_like(self.shares) if weighted else _normalised(self.shares, self.heads)
        weights = _normalised(weights, roots)
        is_root = roots == _cells(roots)
        return Plan.merge((is_root.cumsum(0) - 1)[roots], is_root.nonzero().flatten(), weights, drops=False)


def _cells(like: Tensor) -> Tensor:
    return torch.arange(len(like), device=like.device)


def _normalised(weights: Tensor, group: Tensor) -> Tensor:
    """`weights` (cells,) over their sum in each `group` (cells,)."""
    return weights / torch.zeros_like(weights).scatter_add(0, group, weights)[group]
