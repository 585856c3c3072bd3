"""Pyramid temporal gridding (PTG)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from stgridpool.compressor import FRAMES, PATCHES, Step
from stgridpool.evidence import Evidence
from stgridpool.frame_transform import FrameTransform
from stgridpool.frames.layout import RewrittenFrames, lay_out
from stgridpool.frames.mosaics import LARGEST_GRID, Level, num_grids, rewrite
from stgridpool.frames.patterns import every_token
from stgridpool.frames.pictures import gridded
from stgridpool.options import choice, number, whole_number, whole_numbers
from stgridpool.plan import Plan, Shape
from stgridpool.video_tokens import VideoTokens

RELEASED_WINDOW, RELEASED_LEVELS = 8, 3
WRITES = ("replace", "append", "blend")
GRIDDINGS = ("tokens", "images")
LONGEST_WINDOW, MOST_LEVELS = 1_000_000, 16


@dataclass(frozen=True)
class PTG(FrameTransform):
    """Replace some frames by mosaics: K frames are resized and tiled, and the mosaic takes the place of the last.

    Level l samples every `strides[l]`-th frame and makes a mosaic of every `grid_size` sampled frames, so it works on
    windows of ``strides[l] * grid_size`` frames. Higher levels see the mosaics of lower ones. The number of tokens
    does not change, unless mosaics are appended.

    The paper gives windows instead of strides: with `window` K and `levels` L, level l = 1..L works on windows of
    ``K * 2^(l-1)`` frames, so its stride is ``K * 2^(l-1) / grid_size``, which need not be whole: of 6 frames a grid of
    4 gets frames 0, 2, 4 and 5, by the released rule for even distances. With neither form, the windows are those of
    the released runs: 8, 16 and 32 frames.

    Source: ST-GridPool (ICLR 2026), pyramid temporal gridding. Rounding and order follow the released code, but the
    source tokens are never overwritten.

    Attributes:
        strides: Frames from one sampled frame to the next, per level, numbers from 1 to 1,000,000.
        grid_size: Frames per grid, one number or one per level, 1 to 1024.
        window: K in frames, `grid_size` to 1,000,000; the paper's form. The object keeps the strides that follow from
            it.
        levels: Number of levels, 1 to 16; the paper's form.
        write: Where a mosaic goes: "replace", as released; "blend", the mean of it and the frame that it would
            replace takes that place; or "append", it is one more frame after that one, no frame is lost, and all
            levels sample the video's own frames.
        gridding: "tokens", as released, in place of the checkpoint's own pooling; or "images", with which the paper
            compares: mosaics are made of frames, before the vision tower, see `FrameTransform`.

    Raises:
        ValueError: If both forms or half of one are given, or an option is of the wrong type or out of its range.
    """

    without_budget: ClassVar[str] = "it exchanges frames for mosaics; join ptg+downsample, or use st_gridpool"

    strides: tuple[float, ...] | None = None
    grid_size: int | tuple[int, ...] = 4
    window: int | None = None
    levels: int | None = None
    write: str = "replace"
    gridding: str = "tokens"

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
        choice("write", self.write, WRITES)
        choice("gridding", self.gridding, GRIDDINGS)

    def steps(self) -> tuple[Step, ...]:
        """Return where it acts: in place of the checkpoint's own pooling, or on frames."""
        return (Step(self, PATCHES if self.gridding == "tokens" else FRAMES),)

    @property
    def pyramid(self) -> tuple[Level, ...]:
        """The levels."""
        return pyramid_levels(self.strides, self.grid_size)

    def planned_shape(self, shape: Shape) -> Shape:
        """Return the source lattice, with a frame more for each mosaic that is appended."""
        added = num_grids(shape[0], self.pyramid) if self.write == "append" else 0
        return shape[0] + added, shape[1], shape[2]

    def pictures(self, frames: Tensor) -> Tensor:
        """See the base class."""
        return gridded(frames, self.pyramid, self.write)

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Make mosaics for some frames, and keep the others as they are."""
        device, shape = tokens.maps().device, tokens.shape
        return lay_out(every_token(shape[1:]), shape, device, self.rewrite(shape))

    def rewrite(self, shape: Shape) -> RewrittenFrames | None:
        """Return the mosaics of a (T, H, W) video; None if it is too short for any."""
        return rewrite(shape, self.pyramid, self.write)


def pyramid_levels(
    strides: Sequence[float] | None,
    grid_size: int | tuple[int, ...],
    window: int | None = None,
    levels: int | None = None,
) -> tuple[Level, ...]:
    """Return the levels that the options of `PTG` describe.

    Raises:
        ValueError: See `PTG`.
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
        if not isinstance(strides, list | tuple) or len(strides) > MOST_LEVELS:
            raise ValueError(f"strides must be a list of at most {MOST_LEVELS} numbers, got {strides!r}")
        strides = [_stride(stride) for stride in strides]
        sizes = _grid_sizes(grid_size, len(strides))
    return tuple(Level(size, stride) for size, stride in zip(sizes, strides, strict=True))


def _grid_sizes(grid_size: int | tuple[int, ...], num_levels: int) -> tuple[int, ...]:
    """Return the frames per grid at each level."""
    if not isinstance(grid_size, list | tuple):
        return (whole_number("grid_size", grid_size, 1, LARGEST_GRID),) * num_levels
    sizes = whole_numbers("grid_size", grid_size, 1, LARGEST_GRID, MOST_LEVELS)
    if len(sizes) != num_levels:
        raise ValueError(f"grid_size must be one number or one per level ({num_levels}), got {grid_size}")
    return sizes


def _stride_of(window: int, level: int, grid_size: int) -> float:
    frames = window << level  # window * 2^level
    if frames < grid_size:
        raise ValueError(
            f"a window of {frames} frames must hold at least grid_size={grid_size} frames, choose a larger window"
        )
    return _stride(frames / grid_size)


def _stride(value: object) -> float:
    """Return a stride, as a whole number if it is one."""
    stride = number("strides", value, 1, LONGEST_WINDOW, "frames")
    return int(stride) if stride.is_integer() else stride
