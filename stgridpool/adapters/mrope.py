"""Positions of M-RoPE, with an axis each for time, row and column, as in training.

Text advances all axes by one. A segment of visual tokens counts its frames, rows and columns from the next free
position, and the text after it begins at the maximum over all axes plus one. Time steps are multiplied in floating
point and rounded down.

transformers 5.3 and later begin the text after a long video of Qwen2-VL and Qwen2.5-VL earlier, in the middle of the
video's time; the models were trained with the positions computed here.

Source: Qwen2-VL, https://arxiv.org/abs/2409.12191, section 2.1; Qwen2.5-VL, https://arxiv.org/abs/2502.13923.

Letters: B prompts, L positions with padding, T frames of H x W tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from stgridpool.plan import Shape


@dataclass(frozen=True)
class Grid:
    """A segment of visual tokens that are numbered together.

    Attributes:
        shape: (T, H, W) of its tokens.
        time_step: Positions from one frame to the next, 0 or more; any real number.
    """

    shape: Shape
    time_step: float = 1.0

    def positions(self) -> Tensor:
        """Return the positions (3, T * H * W) int64 of its tokens, counted from 0."""
        frames, rows, columns = map(torch.arange, self.shape)
        axes = torch.meshgrid((frames * self.time_step).long(), rows, columns, indexing="ij")
        return torch.stack(axes).flatten(1)


def mrope_positions(kinds: Tensor, mask: Tensor, grids: Mapping[int, Iterator[Grid]]) -> Tensor:
    """Return the positions (3, B, L) int64 of prompts, on the device of `kinds`; those of padding are 0.

    Args:
        kinds: (B, L), 0 for text, otherwise the key in `grids` of the visual that the position belongs to.
        mask: (B, L) bool, the positions that are not padding.
        grids: The segments of each kind, in the order of the prompts.

    Raises:
        ValueError: If there are more or fewer positions of visuals than their segments have tokens.
    """
    positions = torch.zeros(3, *kinds.shape, dtype=torch.int64)
    for row, (row_kinds, real) in enumerate(zip(kinds.cpu(), mask.cpu(), strict=True)):
        positions[:, row, real] = _row_positions(row_kinds[real].tolist(), grids)
    return positions.to(kinds.device)


def _row_positions(kinds: list[int], grids: Mapping[int, Iterator[Grid]]) -> Tensor:
    pieces, start = [torch.zeros(3, 0, dtype=torch.int64)], 0
    for kind, group in groupby(kinds):
        remaining = len(list(group))
        while remaining:
            segment = torch.arange(remaining).expand(3, -1) if not kind else _segment(grids[kind], remaining)
            pieces.append(segment + start)
            remaining -= segment.shape[1]
            start = int(pieces[-1].max()) + 1
    return torch.cat(pieces, dim=1)


def _segment(grids: Iterator[Grid], remaining: int) -> Tensor:
    grid = next(grids, None)
    if grid is None or (segment := grid.positions()).shape[1] > remaining:
        raise ValueError(f"a run of {remaining} placeholders does not fit the next visual, {grid}; was the prompt cut?")
    return segment
