"""Video-LLaVA."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from stgridpool.adapters.adapter import Adapter, Clips, EncodedVisual, Inputs
from stgridpool.plan import Shape


class VideoLlavaAdapter(Adapter):
    """Video-LLaVA: the language model reads a class token before the patches of every frame.

    So the tokens of a frame are one row, 1 x 257 as released, and methods that pool neighbours in two dimensions do
    not know which are neighbours. Images have no class token: 16 x 16.
    """

    model_types: ClassVar[tuple[str, ...]] = ("video_llava",)
    encodes_frames_alone: ClassVar[bool] = True
    tower_name: ClassVar[str] = "video_tower"
    sampling: ClassVar[Mapping[str, float]] = {"num_frames": 8}
    image_inputs: ClassVar[tuple[str, ...]] = ("pixel_values_images",)

    def encode(self, model: Any, inputs: Inputs, clips: Clips | None = None) -> list[EncodedVisual]:
        """Encode the videos."""
        pixels: Tensor = inputs["pixel_values_videos"]
        features = model.model.get_video_features(pixels, return_dict=True).pooler_output  # (B * T, 257, D)
        return [EncodedVisual(frames[:, None]) for frames in features.unflatten(0, pixels.shape[:2])]

    def source_shape(self, model: Any, video: Inputs) -> Shape:
        """Return (T, 1, W): the class token and the patches of a frame are one row."""
        frames, height, width = super().source_shape(model, video)
        return frames, 1, 1 + height * width

    def encode_images(self, model: Any, inputs: Inputs) -> list[EncodedVisual]:
        """Encode the images."""
        pixels: Tensor = inputs["pixel_values_images"]
        features = model.model.get_image_features(pixels, return_dict=True).pooler_output  # (n, H * W, D)
        side = math.isqrt(features.shape[1])
        return [EncodedVisual(image.unflatten(1, (side, side))) for image in features.split(1)]
