"""FrameResizing: resizing of frames to the square input of a vision tower, as plain data for a reading process.

The filter is Pillow's bicubic one on 8-bit pixels, as in training: torchvision's differs by up to two grey levels. A
frame of the right size stays unchanged, so resizing twice equals resizing once.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True)
class FrameResizing:
    """A transform that resizes pictures to a square.

    Attributes:
        side: Side S of the square, in pixels.
        keep_aspect: Whether to resize the shorter side to S and crop the centre (CLIP) instead of squeezing both sides
            to S (SigLIP).
    """

    side: int
    keep_aspect: bool = False

    def __call__(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize RGB pixels (h, w, 3) to (S, S, 3)."""
        return np.asarray(self.resize(Image.fromarray(frame)))

    def resize(self, image: Image.Image) -> Image.Image:
        """Resize a picture of any size to (S, S)."""
        side = self.side
        if not self.keep_aspect:
            return image.resize((side, side), Image.Resampling.BICUBIC)
        short, long = sorted(image.size)
        scaled = int(side * long / short)
        width, height = (scaled, side) if image.width >= image.height else (side, scaled)
        left, top = (width - side) // 2, (height - side) // 2
        return image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + side, top + side))
