"""Which nodes of neighbouring frames become one token: rules that turn matches into a forest.

A node is named by its first cell, cells are counted through all frames (t*H*W + y*W + x), and a forest is a tensor of
parents, (cells,) int64, in which roots are their own parents. Parents come before their children.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_ROUNDS_PER_CHECK = 8


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


def join_components(
    matches: Matches, num_cells: int, may_stop_early: bool, num_rounds: int | None = None
) -> tuple[Tensor, Tensor]:
    """All nodes that matches connect become one, named by the first of them.

    Labels spread along matches towards the smaller one, and every round ends with a jump from label to label's label.

    Args:
        matches: the pairs to join.
        num_cells: of all frames.
        may_stop_early: stop as soon as every label is its own label, as STTM's released code does, whether or not
            labels still differ across a match. Chains of h matches are covered after round 1, 2, 3, ... for h up to
            2, 6, 14, ...; so in short videos some matches do nothing.
        num_rounds: rounds at most. If given, nothing waits for the device.

    Returns:
        The forest, and for each node the largest similarity of its matches, -inf for roots.
    """
    label = torch.arange(num_cells, device=matches.later.device)
    is_match = matches.similarity > -torch.inf
    is_done = torch.zeros((), dtype=torch.bool, device=label.device)
    while True:
        for _ in range(num_rounds or _ROUNDS_PER_CHECK):
            smaller = torch.minimum(label[matches.earlier], label[matches.later]).where(is_match, num_cells)
            spread = label.scatter_reduce(0, matches.earlier, smaller, "amin")
            spread = spread.scatter_reduce(0, matches.later, smaller, "amin")
            label = label.where(is_done, spread[spread])
            is_done = (label == label[label]).all()
            if not may_stop_early:
                is_done &= ((label[matches.earlier] == label[matches.later]) | ~is_match).all()
        if num_rounds is not None or is_done:  # reading is_done waits for the device, seldom more than once
            break
    best = matches.similarity.new_full((num_cells,), -torch.inf)
    for side in (matches.earlier, matches.later):
        best = best.scatter_reduce(0, side, matches.similarity, "amax")
    return label, best.where(label != torch.arange(num_cells, device=label.device), -torch.inf)


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
