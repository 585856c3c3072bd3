"""The cells of a video merged into trees, each of which becomes one token."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from stgridpool.plan import Grid, Plan


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

    def plan(self, grid: Grid, weighted: bool) -> Plan:
        """A token for every tree, on the place of its root, on the source `grid` (T, H, W).

        Args:
            grid: (T, H, W); their product is the number of cells.
            weighted: whether a token is the mean of its cells; else of its nodes, each as much as another.
        """
        _, height, width = grid
        roots = self.roots()
        weights = torch.ones_like(self.shares) if weighted else _normalised(self.shares, self.heads)
        weights = _normalised(weights, roots)
        sizes = torch.zeros_like(roots).scatter_add(0, roots, torch.ones_like(roots))
        left = sizes.nonzero().flatten()
        sources = roots.argsort(stable=True)
        return Plan(
            sources=sources,
            offsets=F.pad(sizes[left].cumsum(0), (1, 0)),
            weights=weights[sources],
            place=torch.stack([left // (height * width), left // width % height, left % width], dim=1),
            grid=grid,
            shape=grid,
        )


def _cells(like: Tensor) -> Tensor:
    return torch.arange(len(like), device=like.device)


def _normalised(weights: Tensor, group: Tensor) -> Tensor:
    """`weights` (cells,) over their sum in each `group` (cells,)."""
    return weights / torch.zeros_like(weights).scatter_add(0, group, weights)[group]
