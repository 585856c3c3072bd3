"""WindowPooling: options and geometry of methods that pool windows of every frame."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from stgridpool.compressor import Compressor
from stgridpool.equal_budget import Reference, window_sides
from stgridpool.frames.patterns import Windows, pooling_windows, window_starts
from stgridpool.options import LONGEST_SIDE, Pair, flag, pair
from stgridpool.plan import Shape

WHOLE_WINDOWS = "its windows have whole sizes, which meet few counts; set kernel_size, or join it with downsample"


@dataclass(frozen=True)
class WindowPooling(Compressor):
    """Base of methods that make one token from every window of a frame.

    The output has ``floor((H + 2 padding - kernel_size) / stride) + 1`` rows, and columns likewise; a window longer
    than the padded side is cut to it. 27 rows become 13 by default, or 14 with `ceil_mode`.

    Attributes:
        kernel_size: Tokens per window along a side, a number or (rows, columns), 1 to 256.
        stride: Tokens from one window to the next, a number or (rows, columns), 1 to 256; None for `kernel_size`.
        padding: Empty positions around the frame, a number or (rows, columns), 0 to half of `kernel_size`.
        ceil_mode: Whether tokens left over at the end get a smaller window of their own.

    Raises:
        ValueError: If an option is of the wrong type or out of its range.
    """

    without_budget: ClassVar[str] = WHOLE_WINDOWS

    kernel_size: int | Pair = 2
    stride: int | Pair | None = None
    padding: int | Pair = 0
    ceil_mode: bool = False

    def __post_init__(self) -> None:
        if self.stride is None:
            object.__setattr__(self, "stride", self.kernel_size)
        flag("ceil_mode", self.ceil_mode)
        kernel, _, padding = self._pairs()
        for name in ("kernel_size", "stride", "padding"):
            value = getattr(self, name)
            object.__setattr__(self, name, value if isinstance(value, int) else tuple(value))
        if any(2 * pad > size for pad, size in zip(padding, kernel, strict=True)):
            raise ValueError(f"padding must be at most half of kernel_size={self.kernel_size}, got {self.padding}")

    def windows(self, shape: Shape) -> Windows:
        """Return the windows of one frame of a (T, H, W) video."""
        return pooling_windows(shape[1:], *self._pairs(), self.ceil_mode)

    def planned_shape(self, shape: Shape) -> Shape:
        """Return (T, H', W'): the same number of frames, with one token per window."""
        sides = zip(shape[1:], *self._pairs(), strict=True)
        rows, columns = (len(window_starts(*side, self.ceil_mode)[0]) for side in sides)
        return shape[0], rows, columns

    def at_retention(self, share: float, of: str, reference: Reference) -> Compressor:
        """Choose the windows, of any sides, that come nearest; they do not overlap. See `Compressor.at_retention`."""
        del of  # all definitions agree on what enters the language model
        return reference.nearest((replace(self, kernel_size=one, stride=None) for one in window_sides()), share)

    def _pairs(self) -> tuple[Pair, Pair, Pair]:
        stride = self.kernel_size if self.stride is None else self.stride
        return (
            pair("kernel_size", self.kernel_size, 1, LONGEST_SIDE),
            pair("stride", stride, 1, LONGEST_SIDE),
            pair("padding", self.padding, 0, LONGEST_SIDE),
        )
