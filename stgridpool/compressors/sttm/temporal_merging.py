"""Which nodes of neighbouring frames become one token: rules that turn matches into a forest.

A node is named by its first cell, cells are counted through all frames (t*H*W + y*W + x), and a forest is a tensor of
parents, (cells,) int64, in which roots are their own parents. Parents come before their children.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

_ROUNDS_PER_CHECK = 16


class Matches(NamedTuple):
    """Pairs of nodes of neighbouring frames that may be merged, one place for each whether it is a pair or not."""

    earlier: Tensor
    """(P,) int64, the node in frame t."""
    later: Tensor
    """(P,) int64, the node in frame t + 1."""
    similarity: Tensor
    """(P,) float32; -inf where there is no pair."""

    def above(self, threshold: float | Tensor) -> Matches:
        """Those at least as similar as `threshold`."""
        return self._replace(similarity=self.similarity.where(self.similarity >= threshold, -torch.inf))


def follow_most_similar(matches: Matches, num_cells: int) -> tuple[Tensor, Tensor]:
    """Each node follows its most similar match in the frame before; of equals the first.

    Returns:
        The forest, and the similarity (cells,) of each node to its parent, -inf for roots.
    """
    best = matches.similarity.new_full((num_cells,), -torch.inf)
    best = best.scatter_reduce(0, matches.later, matches.similarity, "amax")
    chosen = (matches.similarity == best[matches.later]) & (matches.similarity > -torch.inf)
    parents = torch.arange(num_cells, device=best.device)
    first = parents.new_full((num_cells,), num_cells)
    first = first.scatter_reduce(0, matches.later, matches.earlier.where(chosen, num_cells), "amin")
    return first.where(first < num_cells, parents), best


def join_components(matches: Matches, num_cells: int, num_rounds: int | None = None) -> tuple[Tensor, Tensor]:
    """All nodes that matches connect become one, named by the first of them.

    Per round each match hangs both ends, and what they hang on, below the smaller of the cells above them, and every
    node moves up to what is above the cell above it: the number of rounds grows with the logarithm of the frames.

    Args:
        matches: the pairs to join.
        num_cells: of all frames.
        num_rounds: rounds at most, and nothing waits for the device; if not given, until all are joined.

    Returns:
        The forest, and for each node the largest similarity of its matches, -inf for roots.
    """

    def join(label: Tensor, smaller_of: Callable[[Tensor], Tensor]) -> Tensor:
        above = label[label]
        smaller = smaller_of(above)
        for target in (matches.earlier, matches.later, label[matches.earlier], label[matches.later]):
            above = above.scatter_reduce(0, target, smaller, "amin")
        return above[above]

    def agree(label: Tensor) -> Tensor:
        same = label[matches.earlier] == label[matches.later]
        return (same | (matches.similarity == -torch.inf)).all() & (label == label[label]).all()

    return _spread(matches, num_cells, join, agree, num_rounds)


def join_as_released(matches: Matches, num_cells: int, num_rounds: int | None = None) -> tuple[Tensor, Tensor]:
    """Some of the nodes that matches connect become one: the rule of STTM's released code.

    Per round both ends of a match take the smaller of their labels, and then each label becomes its label's label. It
    stops as soon as every label is its own label, whether or not labels still differ across a match. A chain of h
    matches takes 1, 2, 3, ... rounds for h up to 2, 6, 14, ...; so in short videos some matches do nothing, and what
    happens in one place depends on the longest chain anywhere.

    Args, Returns: as `join_components`.
    """

    def join(label: Tensor, smaller_of: Callable[[Tensor], Tensor]) -> Tensor:
        smaller = smaller_of(label)
        spread = label.scatter_reduce(0, matches.earlier, smaller, "amin")
        spread = spread.scatter_reduce(0, matches.later, smaller, "amin")
        return spread[spread]

    return _spread(matches, num_cells, join, lambda label: (label == label[label]).all(), num_rounds)


def _spread(
    matches: Matches,
    num_cells: int,
    join: Callable[[Tensor, Callable[[Tensor], Tensor]], Tensor],
    is_done: Callable[[Tensor], Tensor],
    num_rounds: int | None,
) -> tuple[Tensor, Tensor]:
    """Rounds of `join` until `is_done`, from a label per cell on: itself. For the rest see `join_components`."""
    is_match = matches.similarity > -torch.inf

    def smaller_of(label: Tensor) -> Tensor:
        return torch.minimum(label[matches.earlier], label[matches.later]).where(is_match, num_cells)

    cells = torch.arange(num_cells, device=is_match.device)
    label, done = cells, torch.zeros((), dtype=torch.bool, device=cells.device)
    while True:
        for _ in range(num_rounds or _ROUNDS_PER_CHECK):
            label = label.where(done, join(label, smaller_of))
            done = is_done(label)
        if num_rounds is not None or done:  # reading `done` waits for the device, so that is seldom done twice
            break
    best = matches.similarity.new_full((num_cells,), -torch.inf)
    for side in (matches.earlier, matches.later):
        best = best.scatter_reduce(0, side, matches.similarity, "amax")
    return label, best.where(label != cells, -torch.inf)


def drop_repeated_neighbours(matches: Matches, frames: int) -> Matches:
    """STTM's "most similar destination" as it was released.

    For each two frames matches are sorted by falling similarity, and a match is dropped if the one just before it has
    the same later node. That seldom happens, so that hardly anything is dropped.

    Args:
        matches: as many for each of the ``frames - 1`` pairs of frames, one pair after the other.
        frames: T, at least 2.
    """
    similarity, order = matches.similarity.view(frames - 1, -1).sort(dim=1, descending=True, stable=True)
    later = matches.later.view_as(order).gather(1, order)
    repeated = torch.zeros_like(similarity, dtype=torch.bool)
    repeated[:, 1:] = later[:, 1:] == later[:, :-1]
    kept = torch.empty_like(similarity).scatter(1, order, similarity.masked_fill(repeated, -torch.inf))
    return matches._replace(similarity=kept.flatten())
