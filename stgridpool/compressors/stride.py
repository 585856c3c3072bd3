"""Pruning at even distances: every n-th frame, every n-th token, or as many tokens as a budget allows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from stgridpool.evidence import Evidence
from stgridpool.options import LONGEST_SIDE, Pair, pair, whole_number
from stgridpool.plan import Plan, Shape
from stgridpool.scorer import Budgeted
from stgridpool.video_tokens import VideoTokens

LARGEST_STRIDE = 100_000


@dataclass(frozen=True)
class Stride(Budgeted):
    """Keep tokens at even distances: by strides, which leave a lattice, or to a budget, which is met exactly.

    * `temporal` keeps ``k = ceil(T / temporal)`` frames, frame ``round(i (T - 1) / (k - 1))`` for i from 0, halves
      rounded up: the first, the last, and others evenly between them. If k is 1, it keeps the first.
    * `spatial` keeps ``ceil(H / stride)`` rows and ``ceil(W / stride)`` columns, centred in the frame: of 27 rows a
      stride of 3 keeps 1, 4, ..., 25, and a stride of 2 keeps 0, 2, ..., 26.
    * A budget of K of N tokens keeps token ``floor((2 i + 1) N / (2 K))``, the middle one of each of K equal blocks in
      (frame, row, column) order. If K is a multiple of T, every frame keeps the same places.

    Without any option a quarter of the tokens is kept.

    Attributes:
        temporal: Source frames per kept frame, 1 to 100000; not together with a budget.
        spatial: Source tokens per kept token along a side, a number or (rows, columns), 1 to 256; not together with a
            budget.

    Raises:
        ValueError: If an option is out of its range, or both strides and a budget are given.
    """

    alternatives: ClassVar[tuple[str, ...]] = ("temporal", "spatial")

    temporal: int | None = None
    spatial: int | Pair | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temporal is not None:
            whole_number("temporal", self.temporal, 1, LARGEST_STRIDE)
        if self.spatial is not None:
            spatial = pair("spatial", self.spatial, 1, LONGEST_SIDE)
            object.__setattr__(self, "spatial", self.spatial if isinstance(self.spatial, int) else spatial)

    @property
    def strides(self) -> tuple[int, int, int] | None:
        """Source frames, rows and columns per kept one; None if a budget decides."""
        if self.temporal is self.spatial is None:
            return None
        rows, columns = pair("spatial", self.spatial or 1, 1, LONGEST_SIDE)
        return self.temporal or 1, rows, columns

    def planned_shape(self, shape: Shape) -> Shape | None:
        """Return the lattice that strides leave, each side ``ceil(side / stride)``; None if a budget decides."""
        if self.strides is None:
            return None
        frames, height, width = (-(-side // stride) for side, stride in zip(shape, self.strides, strict=True))
        return frames, height, width

    def planned_count(self, shape: Shape, total: int | None = None) -> int | None:
        """Return the budget, or the number of places of the lattice that strides leave.

        Raises:
            ValueError: If strides are given and the tokens do not fill their lattice.
        """
        planned = self.planned_shape(shape)
        if planned is None:
            return super().planned_count(shape, total)
        if total is not None:
            raise ValueError(_needs_whole_lattice(total, shape))
        return math.prod(planned)

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Keep tokens at even distances.

        Raises:
            ValueError: If strides are given and the tokens do not fill their lattice.
        """
        total, device = len(tokens), tokens.features.device
        if self.strides is None:
            count = self.count(tokens)
            return Plan.keep((2 * torch.arange(count, device=device) + 1) * total // (2 * count), total)
        if tokens.cell is not None:
            raise ValueError(_needs_whole_lattice(total, tokens.shape))
        (num_frames, height, width), (temporal, down, across) = tokens.shape, self.strides
        frames = _between_ends(num_frames, -(-num_frames // temporal))
        rows, columns = _centred(height, down), _centred(width, across)
        kept = (frames[:, None, None] * height + rows[:, None]) * width + columns
        return Plan.keep(kept.flatten().to(device), total, self.planned_shape(tokens.shape))


def _needs_whole_lattice(total: int, shape: Shape) -> str:
    return (
        f"strides need a whole lattice, and {total} tokens do not fill one of {shape}; give a budget instead, such as "
        "retention=0.5"
    )


def _between_ends(length: int, count: int) -> Tensor:
    """Return `count` whole numbers from 0 to ``length - 1``, both included, at even distances."""
    last = max(count - 1, 1)
    return (2 * torch.arange(count) * (length - 1) + last) // (2 * last)


def _centred(length: int, stride: int) -> Tensor:
    """Return every `stride`-th whole number below `length`, centred between 0 and ``length - 1``."""
    return torch.arange((length - 1) % stride // 2, length, stride)
