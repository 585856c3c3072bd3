"""Temporal merging: rules that decide which matching nodes of adjacent frames become one token.

A node is named by its first cell, and cells are numbered through all frames (t*H*W + y*W + x). A forest is a tensor of
parents, (cells,) int64, in which roots are their own parents. Parents come before their children.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import count
from typing import NamedTuple

import torch
from torch import Tensor

from stgridpool.device_transfer import reading_is_free

MODES = ("released", "components", "directed")
_ROUNDS_PER_CHECK = 16


class Matches(NamedTuple):
    """Candidate pairs of nodes in adjacent frames; a candidate with similarity -inf is not a pair."""

    earlier: Tensor
    """(P,) int64, the node in frame t."""
    later: Tensor
    """(P,) int64, the node in frame t + 1."""
    similarity: Tensor
    """(P,) float32; -inf if the two are not a pair."""

    def above(self, threshold: float | Tensor) -> Matches:
        """Keep the pairs whose similarity is at least `threshold`."""
        return self._replace(similarity=self.similarity.where(self.similarity >= threshold, -torch.inf))


def joining_rule(
    mode: str, num_frames: int, slow: bool, num_rounds: int | None
) -> Callable[[Matches, int], tuple[Tensor, Tensor]]:
    """Return the rule of a mode, a function of the matches and the number of cells.

    Args:
        mode: ``components``: all nodes that matches connect become one. ``directed``: each node is merged into its most
            similar match in the frame before. ``released``: see `join_as_released`.
        num_frames: T.
        slow: Whether mode ``released`` drops matches first, see `drop_repeated_neighbours`.
        num_rounds: For how many rounds labels spread; None until they no longer change.
    """
    if mode == "directed":
        return follow_most_similar
    if mode == "components":
        return partial(join_components, num_rounds=num_rounds)

    def join(matches: Matches, num_cells: int) -> tuple[Tensor, Tensor]:
        chosen = drop_repeated_neighbours(matches, num_frames) if slow else matches
        return join_as_released(chosen, num_cells, num_rounds)

    return join


def follow_most_similar(matches: Matches, num_cells: int) -> tuple[Tensor, Tensor]:
    """Merge each node into its most similar match in the frame before; the first of equals wins.

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
    """Merge all nodes that matches connect into the first of them.

    In each round, a match links both of its ends, and their parents, to the smaller of the parents' parents, and every
    node is then linked to its grandparent. So the number of rounds grows with the logarithm of the number of frames.

    Args:
        matches: The pairs to join.
        num_cells: Number of cells in all frames.
        num_rounds: Fixed number of rounds, so that nothing waits for the device; None to continue until all are joined.

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
    """Merge some of the nodes that matches connect, by the rule of STTM's released code.

    In each round, both ends of a match take the smaller of their labels, and then each label is replaced by the label
    of its label. The rounds end as soon as every label is its own label, even if labels still differ across a match. A
    chain of h matches takes 1, 2, 3, ... rounds for h up to 2, 6, 14, ...; so in short videos some matches have no
    effect, and the result in one place depends on the longest chain anywhere.

    Args:
        matches: See `join_components`.
        num_cells: See `join_components`.
        num_rounds: See `join_components`.

    Returns:
        See `join_components`.
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
    """Repeat `join` until `is_done`, beginning with each cell as its own label; see `join_components`."""
    is_match = matches.similarity > -torch.inf

    def smaller_of(label: Tensor) -> Tensor:
        return torch.minimum(label[matches.earlier], label[matches.later]).where(is_match, num_cells)

    cells = torch.arange(num_cells, device=is_match.device)
    label, done = cells, torch.zeros((), dtype=torch.bool, device=cells.device)
    reads_always = reading_is_free(cells.device)
    for number in count(1):
        label = label.where(done, join(label, smaller_of))
        done = is_done(label)
        reads = reads_always or (num_rounds is None and number % _ROUNDS_PER_CHECK == 0)
        if number == num_rounds or (reads and done):  # further rounds would change nothing
            break
    best = matches.similarity.new_full((num_cells,), -torch.inf)
    for side in (matches.earlier, matches.later):
        best = best.scatter_reduce(0, side, matches.similarity, "amax")
    return label, best.where(label != cells, -torch.inf)


def drop_repeated_neighbours(matches: Matches, frames: int) -> Matches:
    """Drop matches by STTM's "most similar destination", as it was released.

    For each pair of adjacent frames, matches are sorted by descending similarity, and a match is dropped if the one
    just before it has the same later node. That seldom happens, so hardly any match is dropped.

    Args:
        matches: Equally many for each of the ``frames - 1`` pairs of frames, one pair after the other.
        frames: Number of frames T, at least 2.
    """
    similarity, order = matches.similarity.view(frames - 1, -1).sort(dim=1, descending=True, stable=True)
    later = matches.later.view_as(order).gather(1, order)
    repeated = torch.zeros_like(similarity, dtype=torch.bool)
    repeated[:, 1:] = later[:, 1:] == later[:, :-1]
    kept = torch.empty_like(similarity).scatter(1, order, similarity.masked_fill(repeated, -torch.inf))
    return matches._replace(similarity=kept.flatten())
