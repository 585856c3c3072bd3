"""VideoTokens: the tokens of a video, and their places on a lattice."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from stgridpool.plan import Plan, Shape


@dataclass(frozen=True, eq=False)
class VideoTokens:
    """Tokens on a lattice of T frames with H x W cells each: they fill it, or stand on some of its cells.

    Attributes:
        features: (N, D), of any floating dtype.
        shape: (T, H, W) of the lattice.
        cell: (N,) int64, the cell of each token, counted in (frame, row, column) order; None if they fill the lattice.
        levels: More features of the same tokens, (N, D_i) each, such as those of DeepStack.
        times: (T,) float32, the time of each frame in seconds, or None if unknown.
        before: Number of tokens before each earlier step, first step first.

    Raises:
        ValueError: If there is no token, the dtype is not floating, or there are not as many tokens as cells.
    """

    features: Tensor
    shape: Shape
    cell: Tensor | None = None
    levels: tuple[Tensor, ...] = ()
    times: Tensor | None = None
    before: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.features.dim() != 2 or 0 in self.features.shape:
            raise ValueError(f"features must be (tokens, width), none of them 0, got {tuple(self.features.shape)}")
        if not self.features.is_floating_point():
            raise ValueError(f"tokens must have a floating dtype, got {self.features.dtype}")
        places = math.prod(self.shape) if self.cell is None else len(self.cell)
        for rows in (self.features, *self.levels):
            if len(rows) != places:
                raise ValueError(f"there must be one token per cell, got {len(rows)} for {places} of {self.shape}")

    @classmethod
    def of(cls, maps: Tensor) -> VideoTokens:
        """Wrap feature maps (T, H, W, D), whose tokens fill the lattice (T, H, W).

        Raises:
            ValueError: If `maps` does not have four dimensions, one of them is 0, or the dtype is not floating.
        """
        if maps.dim() != 4 or 0 in maps.shape:
            raise ValueError(f"tokens must be (frames, rows, columns, width), none of them 0, got {tuple(maps.shape)}")
        frames, height, width, _ = maps.shape
        # in row order, since products of other layouts round differently, and ties would not go to the same tokens
        return cls(maps.reshape(-1, maps.shape[3]).contiguous(), (frames, height, width))

    def __len__(self) -> int:
        return len(self.features)

    def maps(self) -> Tensor:
        """Return the feature maps (T, H, W, D), a view.

        Raises:
            ValueError: If the tokens do not fill their lattice; the message names the methods that can still act.
        """
        if self.cell is not None:
            from stgridpool.compressors import COMPRESSORS  # noqa: PLC0415  # methods import this module

            able = ", ".join(name for name, method in COMPRESSORS.items() if not method.needs_maps)
            raise ValueError(
                f"{len(self)} tokens do not fill a lattice of {self.shape}; methods that can act on them: {able}"
            )
        return self.features.view(*self.shape, -1)

    def cells(self) -> Tensor:
        """Return the cell (N,) int64 of every token."""
        if self.cell is not None:
            return self.cell
        return torch.arange(len(self), device=self.features.device)

    def places(self) -> Tensor:
        """Return frame, row and column (N, 3) int64 of every token."""
        return unravel(self.cells(), self.shape)

    def frames(self) -> Tensor:
        """Return the frame (N,) int64 of every token."""
        return self.cells() // (self.shape[1] * self.shape[2])

    def frame_sizes(self) -> Tensor:
        """Count the tokens of each frame, (T,) int64 on the CPU; waits for the device unless they fill the lattice."""
        frames, height, width = self.shape
        if self.cell is None:
            return torch.full((frames,), height * width)
        return torch.bincount(self.frames(), minlength=frames).cpu()

    def through(self, plan: Plan, values: Callable[[Tensor], Tensor] | None = None) -> VideoTokens:
        """Apply a plan for these tokens to their features, levels, places and times.

        Args:
            plan: For the same number of tokens.
            values: Maps source rows to output rows in place of ``plan.apply``, for plans that do not reproduce values.

        Raises:
            ValueError: If `plan` is for another number of tokens, or does not reproduce values and `values` is None.
        """
        apply = values or plan.apply
        features, levels = apply(self.features), tuple(apply(level) for level in self.levels)
        before = (*self.before, len(self))
        if plan.shape is None:
            return VideoTokens(features, self.shape, self.cells()[plan.anchor], levels, self.times, before)
        times = self.times
        if times is not None and plan.shape[0] != len(times):
            firsts = plan.anchor[:: plan.shape[1] * plan.shape[2]]
            times = times[self.frames()[firsts]]
        return VideoTokens(features, plan.shape, None, levels, times, before)


def unravel(cells: Tensor, shape: Shape) -> Tensor:
    """Return frame, row and column (N, 3) of cells (N,) of a lattice of `shape`."""
    _, height, width = shape
    return torch.stack([cells // (height * width), cells // width % height, cells % width], dim=1)
