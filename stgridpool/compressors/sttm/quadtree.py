"""Quadtrees over the H x W tokens of a frame, as index tables."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from stgridpool.budget import BudgetError
from stgridpool.plan import Shape

Pair = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Quadtree:
    """A forest over one frame, with levels d = 0 (roots) to L - 1 (single tokens).

    Nodes are in *quad order*: the children of node p of level d are the places 4p to 4p + 3 of level d + 1, so that
    a sum over children is a reshape and a sum. Where a side is odd, some of these places are empty. The S places of all
    levels are numbered consecutively, level after level.

    Attributes:
        sizes: (h, w) of every level.
        starts: The first place of every level, and S.
        cells: (leaf places,) int64, the token of each leaf, row-major; 0 in empty places.
        is_node: (S,) bool, False in empty places.
        share: (S,) float32, the share of a node in the mean over its parent's children; 0 in empty places.
        ancestors: (L, S) int64, the ancestor of each place at each level; the place itself at its own level and below.
        corners: (S,) int64, the top left node one level below each place; for leaves, that of their own level.
        cell_nodes: (L, H*W) int64, the node of each level that covers a token.
        cell_heads: (L, H*W) int64, the top left token of that node, which names it.
        cell_shares: (L, H*W) float32, the share of the token in that node's mean of means.
    """

    sizes: tuple[Pair, ...]
    starts: tuple[int, ...]
    cells: Tensor
    is_node: Tensor
    share: Tensor
    ancestors: Tensor
    corners: Tensor
    cell_nodes: Tensor
    cell_heads: Tensor
    cell_shares: Tensor

    def level(self, table: Tensor, depth: int) -> Tensor:
        """Slice out the part (..., n) of `table` (..., S) that belongs to level `depth`."""
        return table[..., self.starts[depth] : self.starts[depth + 1]]

    def pooled(self, values: Tensor, depth: int) -> Tensor:
        """Average `values` (..., n) of level `depth` over the children of each node one level above: (..., n / 4)."""
        weighted: Tensor = (values * self.level(self.share, depth)).unflatten(-1, (-1, 4))
        return weighted.sum(dim=-1)


def halved_sizes(size: Pair) -> tuple[Pair, ...]:
    """Return `size` (H, W) and all sizes that repeated halving, rounding up, makes of it, down to (1, 1)."""
    sizes = [size]
    while sizes[-1] != (1, 1):
        height, width = sizes[-1]
        sizes.append(((height + 1) // 2, (width + 1) // 2))
    return tuple(sizes)


def root_depth(shape: Shape, root_level: int, count: int | None, merges_over_time: bool) -> int:
    """Return how many halvings the roots lie above the tokens: by `root_level`, or more if `count` requires it.

    Args:
        shape: (T, H, W).
        root_level: Counted from the coarsest level, whose shorter side is 2; -1 means tokens.
        count: The budget in tokens, or None.
        merges_over_time: Whether the roots of all frames may become one.

    Raises:
        BudgetError: If the coarsest roots exceed the budget.
    """
    sizes = halved_sizes(shape[1:])
    coarsest = next(depth for depth, size in enumerate(sizes) if min(size) <= 2)
    depth = max(coarsest - root_level, 0) if root_level >= 0 else min(-1 - root_level, coarsest)
    frames = 1 if merges_over_time else shape[0]
    while count is not None and math.prod(sizes[depth]) * frames > count:
        depth += 1
        if depth == len(sizes):
            raise BudgetError(
                f"without merging over time a budget for {shape} must be at least {frames} tokens, one per frame, "
                f"got {count}: set temporal_threshold above 0 or raise the budget"
            )
    return depth


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def quadtree(size: Pair, depth: int, weighted: bool, device: torch.device) -> Quadtree:
    """Build the tree over a frame of (H, W) tokens whose roots lie `depth` halvings above the tokens.

    If a side is odd, its first row (column) is a group of its own and the others are paired: {0}, {1, 2}, {3, 4}, ...

    Args:
        size: (H, W).
        depth: At least 0; 0 makes every token a root.
        weighted: Whether nodes are means over tokens instead of means over children (means of means).
        device: Device of the tables.
    """
    sizes = halved_sizes(size)[depth::-1]
    is_node, cells = _places(sizes)  # of every level; of the leaves
    counts = [len(level) for level in is_node]
    starts = tuple(F.pad(torch.tensor(counts).cumsum(0), (1, 0)).tolist())
    shares = _shares(is_node, weighted)
    leaf_of_cell = torch.empty(math.prod(size), dtype=torch.int64)
    leaf_of_cell[cells[is_node[-1]]] = is_node[-1].nonzero().flatten()
    ancestors, nodes, heads, cell_shares = [], [], [], [torch.ones(math.prod(size))]
    for level in range(depth + 1):
        lines = [torch.arange(count) // 4 ** max(below - level, 0) for below, count in enumerate(counts)]
        ancestors.append(torch.cat([line + starts[min(level, below)] for below, line in enumerate(lines)]))
        place = leaf_of_cell // 4 ** (depth - level)
        nodes.append(place + starts[level])
        heads.append(cells[place * 4 ** (depth - level)])  # the first child of a node is never empty
    for level in range(depth, 0, -1):
        cell_shares.insert(0, cell_shares[0] * shares[nodes[level]])
    corners = [torch.full((count,), starts[min(level + 1, depth)]) for level, count in enumerate(counts)]
    stacks = (torch.stack(table) for table in (nodes, heads, cell_shares))
    tables = (cells, torch.cat(is_node), shares, torch.stack(ancestors), torch.cat(corners), *stacks)
    return Quadtree(sizes, starts, *(table.to(device) for table in tables))


def _places(sizes: tuple[Pair, ...]) -> tuple[list[Tensor], Tensor]:
    """Return which places (n,) of each level hold a node, in quad order, and the token of each leaf, 0 if empty."""
    rows, columns = (_axis_places([size[axis] for size in sizes]) for axis in (0, 1))
    vertical = torch.arange(sizes[0][0]).repeat_interleave(sizes[0][1])
    horizontal = torch.arange(sizes[0][1]).repeat(sizes[0][0])
    is_node = [torch.ones(len(vertical), dtype=torch.bool)]
    for row, column in zip(rows[1:], columns[1:], strict=True):
        vertical = (2 * vertical[:, None] + torch.tensor([0, 0, 1, 1])).flatten()
        horizontal = (2 * horizontal[:, None] + torch.tensor([0, 1, 0, 1])).flatten()
        is_node.append((row[vertical] >= 0) & (column[horizontal] >= 0))
    cells = rows[-1][vertical] * sizes[-1][1] + columns[-1][horizontal]
    return is_node, cells.where(is_node[-1], 0)


def _axis_places(sides: list[int]) -> list[Tensor]:
    """Return the index of each place along one axis, per level, -1 if empty; place s has children 2s and 2s + 1."""
    places = [torch.arange(sides[0])]
    for side in sides[1:]:
        first = 2 * places[-1] - side % 2
        children = torch.stack([first, first + 1], dim=1)
        if side % 2:
            children[0] = torch.tensor([0, -1])
        places.append(torch.where(places[-1][:, None] < 0, -1, children).flatten())
    return places


def _shares(levels: list[Tensor], weighted: bool) -> Tensor:
    """Return `Quadtree.share`, (S,) float32; roots have share 1."""
    sizes = [levels[-1].float()]  # the weight of each node
    for level in reversed(levels[:-1]):
        sizes.insert(0, sizes[0].view(-1, 4).sum(dim=1) if weighted else level.float())
    shares = [sizes[0].clamp(max=1)]
    for size in sizes[1:]:
        total = size.view(-1, 4).sum(dim=1, keepdim=True).clamp(min=1)
        shares.append((size.view(-1, 4) / total).flatten())
    return torch.cat(shares)
