"""Adaptive pooling over time and space, PLLaVA's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from stgridpool.compressor import Compressor
from stgridpool.evidence import Evidence
from stgridpool.frames.groups import pool_over_time
from stgridpool.frames.layout import resident
from stgridpool.frames.patterns import resizing
from stgridpool.options import LONGEST_SIDE, Pair, pair, whole_number
from stgridpool.plan import Plan, Shape
from stgridpool.video_tokens import VideoTokens

MOST_FRAMES = 100_000


@dataclass(frozen=True)
class AdaptivePool(Compressor):
    """Average to a fixed number of frames, rows and columns, whatever comes in.

    Along each axis, new position i of n is the mean of the old positions from ``floor(i L / n)`` up to
    ``ceil((i + 1) L / n)``: windows overlap where n does not divide the length L. Unlike in the source, an axis shorter
    than asked for stays as it is; there its tokens would be repeated.

    The lattice is the method, so there is no budget to meet: ``frames`` and ``size`` say what remains.

    Source: PLLaVA, arXiv 2404.16994, whose 16 x 12 x 12 tokens are the default.

    Attributes:
        frames: Maximum number of frames left, 1 to 100000.
        size: Most rows and columns left, a number or (rows, columns), 1 to 256.

    Raises:
        ValueError: If an option is out of its range.
    """

    without_budget: ClassVar[str] = (
        "its lattice is the method, the same for short and long videos; set frames and size, or use downsample"
    )

    frames: int = 16
    size: int | Pair = 12

    def __post_init__(self) -> None:
        whole_number("frames", self.frames, 1, MOST_FRAMES)
        size = pair("size", self.size, 1, LONGEST_SIDE)
        object.__setattr__(self, "size", self.size if isinstance(self.size, int) else size)

    def planned_shape(self, shape: Shape) -> Shape:
        """Return the smaller of both on each axis."""
        rows, columns = pair("size", self.size, 1, LONGEST_SIDE)
        return min(self.frames, shape[0]), min(rows, shape[1]), min(columns, shape[2])

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Average over frames, rows and columns."""
        maps, planned = tokens.maps(), self.planned_shape(tokens.shape)
        groups = resizing((tokens.shape[0], 1), (planned[0], 1), "area").rows
        pattern = resizing(tokens.shape[1:], planned[1:], "area")
        return resident(pool_over_time(groups, pattern, tokens.shape), maps.device)
