"""Bilinear resizing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from stgridpool.compressor import Compressor
from stgridpool.equal_budget import Reference, window_sides
from stgridpool.evidence import Evidence
from stgridpool.frames.layout import lay_out
from stgridpool.frames.patterns import resizing
from stgridpool.options import LONGEST_SIDE, Pair, pair
from stgridpool.plan import Plan, Shape
from stgridpool.video_tokens import VideoTokens


@dataclass(frozen=True)
class Bilinear(Compressor):
    """Resize every frame to ``ceil(H / stride)`` rows and ``ceil(W / stride)`` columns: 27 become 14.

    Interpolation is bilinear, without aligned corners and without antialiasing. LLaVA-Video and LLaVA-OneVision
    checkpoints were trained with this pooling.

    Source: LLaVA-NeXT, ``mm_spatial_pool_mode: bilinear``.

    Attributes:
        stride: Source tokens per output token along a side, a number or (rows, columns), 1 to 256.

    Raises:
        ValueError: If `stride` is out of its range.
    """

    without_budget: ClassVar[str] = (
        "its strides are whole numbers, which meet few counts; set stride, or use downsample"
    )

    stride: int | Pair = 2

    def __post_init__(self) -> None:
        pair("stride", self.stride, 1, LONGEST_SIDE)
        object.__setattr__(self, "stride", self.stride if isinstance(self.stride, int) else tuple(self.stride))

    def planned_shape(self, shape: Shape) -> Shape:
        """Return (T, ceil(H / stride), ceil(W / stride))."""
        rows, columns = pair("stride", self.stride, 1, LONGEST_SIDE)
        return shape[0], -(-shape[1] // rows), -(-shape[2] // columns)

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Make every output token from at most four source tokens."""
        device, shape = tokens.maps().device, tokens.shape
        return lay_out(resizing(shape[1:], self.planned_shape(shape)[1:], "linear"), shape, device)

    def at_retention(self, share: float, of: str, reference: Reference) -> Compressor:
        """Choose the strides, of any sides, that come nearest. See `Compressor.at_retention`."""
        del of  # all definitions agree on what enters the language model
        return reference.nearest((replace(self, stride=one) for one in window_sides()), share)
