"""Pixels of decoded frames as a player shows them: with the file's colours, upright, and of the same size."""

from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange
from numpy.typing import NDArray


def rgb(frame: av.VideoFrame, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Convert a frame to upright RGB pixels (h, w, 3), by its own colour matrix and range.

    Args:
        frame: The decoded frame.
        size: (width, height) in pixels before rotation; frames of other sizes are scaled to it.
    """
    is_full = frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj")
    width, height = size
    pixels: NDArray[Any] = frame.to_ndarray(
        format="rgb24",
        width=width,
        height=height,
        dst_colorspace="DEFAULT",
        src_color_range=ColorRange.JPEG if is_full else ColorRange.MPEG,
        interpolation="BILINEAR" if (frame.width, frame.height) == size else "BICUBIC",
    )
    return np.ascontiguousarray(_upright(pixels, frame))


def _upright(pixels: NDArray[np.uint8], frame: av.VideoFrame) -> NDArray[np.uint8]:
    """Rotate and mirror pixels by the frame's display matrix, to the nearest quarter turn.

    The matrix (a b u, c d v, x y w) takes the point (p, q) to (a p + c q + x, b p + d q + y), y downwards.

    Source: ISO/IEC 14496-12, 6.2.2
    """
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")  # a buffer
    if matrix is None:
        return pixels
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    if abs(a) + abs(d) < abs(b) + abs(c):
        pixels = pixels.swapaxes(0, 1)
        right, down = c, b
    else:
        right, down = a, d
    return pixels[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1]
