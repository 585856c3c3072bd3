"""VisionImageProcessor: from images and frames to the pixel values that a vision tower reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature

from llava.frame_resizing import FrameResizing

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

Images = Image.Image | np.ndarray | Sequence[Image.Image | np.ndarray]


@dataclass(frozen=True)
class VisionImageProcessor:
    """A transform that resizes images to a square, scales them to 0..1 and normalises each channel.

    Attributes:
        image_size: Side S of the square, in pixels.
        image_mean: Mean per channel (red, green, blue), 0 to 1.
        image_std: Standard deviation per channel, 0 to 1.
        keep_aspect: Whether to resize the shorter side to S and crop the centre (CLIP) instead of squeezing both sides
            to S (SigLIP).
    """

    image_size: int
    image_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    image_std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    keep_aspect: bool = False
    rescale_factor: float = 1 / 255

    @property
    def crop_size(self) -> dict[str, int]:
        """Size of the output, in pixels."""
        return {"height": self.image_size, "width": self.image_size}

    @property
    def size(self) -> tuple[int, int] | dict[str, int]:
        """Target of the resize in pixels: (height, width), or the shorter side if the aspect ratio is kept."""
        return {"shortest_edge": self.image_size} if self.keep_aspect else (self.image_size, self.image_size)

    @property
    def resizing(self) -> FrameResizing:
        """The part of `preprocess` that a reading process can do; frames that it resized are not resized again."""
        return FrameResizing(self.image_size, self.keep_aspect)

    def preprocess(self, images: Images, return_tensors: str | None = None) -> BatchFeature:
        """Compute the pixel values of one image, a list of images, or the frames of a video.

        Args:
            images: A PIL image, a list of PIL images or (h, w, 3) uint8 arrays, or an array (T, h, w, 3).
            return_tensors: "pt" for a tensor, "np" or None for an array.

        Returns:
            A mapping whose `pixel_values` is (T, 3, S, S) float32.

        Raises:
            ValueError: If `images` is empty or `return_tensors` is unknown.
        """
        if return_tensors not in (None, "np", "pt"):
            raise ValueError(f"return_tensors must be 'pt', 'np' or None, got {return_tensors!r}")
        items = [images] if isinstance(images, Image.Image) or getattr(images, "ndim", 0) == 3 else list(images)
        if not items:
            raise ValueError("images must hold at least one image")
        pixels = np.stack([np.asarray(self.resizing.resize(_as_rgb(item))) for item in items])  # (T, S, S, 3) uint8
        mean = torch.tensor(self.image_mean, dtype=torch.float32).view(3, 1, 1)
        std = torch.tensor(self.image_std, dtype=torch.float32).view(3, 1, 1)
        values = torch.from_numpy(pixels).permute(0, 3, 1, 2)  # (T, 3, S, S)
        values = values.to(torch.float32, memory_format=torch.contiguous_format)  # the only large copy
        values = values.mul_(self.rescale_factor).sub_(mean).div_(std)
        return BatchFeature({"pixel_values": values if return_tensors == "pt" else values.numpy()})


def _as_rgb(image: Any) -> Image.Image:
    """Convert a PIL image of any mode, or an array (h, w, 3) of 8-bit values, to an RGB PIL image."""
    if not isinstance(image, Image.Image):
        image = Image.fromarray(np.asarray(image).astype(np.uint8))
    converted: Image.Image = image.convert("RGB")
    return converted
