"""Pyramid temporal gridding (PTG)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from stgridpool.compressor import Compressed, Compressor, check_tokens
from stgridpool.frames.layout import RewrittenFrames, lay_out
from stgridpool.frames.mosaics import Level, grid_frames
from stgridpool.frames.patterns import every_token
from stgridpool.options import whole_number, whole_numbers
from stgridpool.plan import Grid, Plan, make_extra

RELEASED_WINDOW, RELEASED_LEVELS = 8, 3
LONGEST_WINDOW, MOST_LEVELS, LARGEST_GRID = 1_000_000, 16, 1024


@dataclass(frozen=True)
class PTG(Compressor):
    """Replace some frames by mosaics of several: K frames, resized and laid out on the place of the last of them.

    Level l takes every `strides[l]`-th frame and makes a mosaic of every `grid_size` of them, so it works on windows
    of ``strides[l] * grid_size`` frames; higher levels see the mosaics of lower ones. The number of tokens stays.

    The paper names the windows: with `window` K and `levels` L, level l = 1..L works on windows of ``K * 2^(l-1)``
    frames, so its stride is ``K * 2^(l-1) / grid_size``. Neither form given means windows of 8, 16 and 32 frames, as in
    the released runs.

    Source: ST-GridPool (ICLR 2026), pyramid temporal gridding; rounding and order as in its released code, except
    that the tokens given are never written to.

    Attributes:
        strides: frames from one sampled frame to the next, per level, 1 to 1,000,000.
        grid_size: frames per grid, one number or one per level, 1 to 1024.
        window: K in frames, 1 to 1,000,000, the paper's form, a multiple of `grid_size`. The object keeps the strides
            that follow.
        levels: number of levels, 1 to 16, the paper's form.

    Raises:
        ValueError: if both forms or half of one are given, or an option is of the wrong type or out of its range.
    """

    strides: tuple[int, ...] | None = None
    grid_size: int | tuple[int, ...] = 4
    window: int | None = None
    levels: int | None = None

    def __post_init__(self) -> None:
        if self.strides is None and self.window is None and self.levels is None:
            object.__setattr__(self, "window", RELEASED_WINDOW)
            object.__setattr__(self, "levels", RELEASED_LEVELS)
        pyramid = pyramid_levels(self.strides, self.grid_size, self.window, self.levels)
        object.__setattr__(self, "strides", tuple(level.stride for level in pyramid))
        if not isinstance(self.grid_size, int):
            object.__setattr__(self, "grid_size", tuple(self.grid_size))
        object.__setattr__(self, "window", None)
        object.__setattr__(self, "levels", None)

    def planned_shape(self, grid: Grid) -> Grid:
        """The grid itself."""
        return grid

    def plan(self, tokens: Tensor) -> Plan:
        """Mosaics for some frames of `tokens` (T, H, W, D), the others as they are."""
        grid = check_tokens(tokens)
        return lay_out(every_token(grid[1:]), grid, tokens.device, rewritten=self.rewritten_frames(grid)).plan

    def compress(self, tokens: Tensor) -> Compressed:
        """What the plan gives, (T*H*W, D): the tokens copied as they are, and the mosaics written into the copy."""
        plan = self.plan(tokens)
        out = tokens.reshape(-1, tokens.shape[3]).clone()
        if plan.patch is not None:
            mosaics = make_extra(tokens.reshape(-1, tokens.shape[3]), plan.steps, plan.num_extra)
            out.index_copy_(0, plan.patch.targets, mosaics)
        return Compressed(out, plan)

    def rewritten_frames(self, grid: Grid) -> RewrittenFrames:
        """The mosaics of a (T, H, W) grid; none where it is too short for any."""
        return grid_frames(grid, pyramid_levels(self.strides, self.grid_size))


def pyramid_levels(
    strides: Sequence[int] | None,
    grid_size: int | tuple[int, ...],
    window: int | None = None,
    levels: int | None = None,
) -> tuple[Level, ...]:
    """The levels that the options of `PTG` name.

    Raises:
        ValueError: see `PTG`.
    """
    is_paper_form = window is not None or levels is not None
    if (strides is not None) == is_paper_form:
        raise ValueError(
            "give either strides, one per level, or window and levels, "
            f"got strides={strides}, window={window}, levels={levels}"
        )
    if is_paper_form and (window is None or levels is None):
        raise ValueError(f"window and levels must both be given, got window={window}, levels={levels}")
    if strides is None:
        num_levels = whole_number("levels", levels, 1, MOST_LEVELS)
        sizes = _grid_sizes(grid_size, num_levels)
        first = whole_number("window", window, 1, LONGEST_WINDOW)
        strides = [_stride_of(first, level, size) for level, size in enumerate(sizes)]
    else:
        strides = whole_numbers("strides", strides, 1, LONGEST_WINDOW, MOST_LEVELS)
        sizes = _grid_sizes(grid_size, len(strides))
    return tuple(Level(size, stride) for size, stride in zip(sizes, strides, strict=True))


def _grid_sizes(grid_size: int | tuple[int, ...], num_levels: int) -> tuple[int, ...]:
    """The frames per grid of each level."""
    if not isinstance(grid_size, list | tuple):
        return (whole_number("grid_size", grid_size, 1, LARGEST_GRID),) * num_levels
    sizes = whole_numbers("grid_size", grid_size, 1, LARGEST_GRID, MOST_LEVELS)
    if len(sizes) != num_levels:
        raise ValueError(f"grid_size must be one number or one per level ({num_levels}), got {grid_size}")
    return sizes


def _stride_of(window: int, level: int, grid_size: int) -> int:
    frames = window * 2**level
    if frames % grid_size:
        raise ValueError(
            f"a window of {frames} frames must be a multiple of grid_size={grid_size}, choose another window"
        )
    return frames // grid_size
