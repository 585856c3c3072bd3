"""LLaVA-OneVision."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from torch import Tensor

from stgridpool.adapters.adapter import Adapter, Clips, EncodedVisual, Inputs
from stgridpool.adapters.captured import captured_output
from stgridpool.compressor import Compressor
from stgridpool.compressors.bilinear import Bilinear
from stgridpool.newlines import NEWLINE_POSITIONS
from stgridpool.options import choice


class LlavaOnevisionAdapter(Adapter):
    """LLaVA-OneVision: frames are pooled bilinearly to half the side, and one newline token follows the video.

    A compressor at the place "patches" sees the frames before that pooling, 27 x 27 in released checkpoints, and
    replaces it. In LLaVA-Video, whose weights this class can run, newlines follow every row or every frame; with
    ``config.mm_newline_position`` they do here, too, and prompts become longer than the class's own. Images are tiles
    with newline tokens between their rows; they stay as they are.
    """

    model_types: ClassVar[tuple[str, ...]] = ("llava_onevision",)
    encodes_frames_alone: ClassVar[bool] = True
    tower_name: ClassVar[str] = "vision_tower"
    video_inputs: ClassVar[tuple[str, ...]] = ("pixel_values_videos", "image_sizes_videos")
    image_inputs: ClassVar[tuple[str, ...]] = ("pixel_values", "image_sizes", "batch_num_images")

    def encode(self, model: Any, inputs: Inputs, clips: Clips | None = None) -> list[EncodedVisual]:
        """Encode the videos; the patches are what the model's own projector outputs."""
        pixels: Tensor = inputs["pixel_values_videos"]
        batch, frames = pixels.shape[:2]
        with captured_output(model.model.multi_modal_projector) as projected:
            pooled = model.get_video_features(pixels, return_dict=True).pooler_output
        patches = projected[0].unflatten(0, (batch, frames))  # (B, T, P * Q, D)
        side = math.isqrt(patches.shape[2])
        own = -(-side // 2)
        tokens = pooled.reshape(batch, -1, pooled.shape[-1])[:, : frames * own * own]  # 5.18 and later add the newline
        return [
            EncodedVisual(rows.unflatten(0, (frames, own, own)), patches=maps.unflatten(1, (side, side)))
            for rows, maps in zip(tokens, patches, strict=True)
        ]

    def tail(self, model: Any) -> Tensor:
        """Return the newline token, (1, D)."""
        newline: Tensor = model.model.image_newline
        return newline[None]

    def newline_position(self, model: Any) -> str | None:
        """Return ``config.mm_newline_position``, which checkpoints converted from LLaVA-Video have; otherwise None.

        Raises:
            ValueError: If it is unknown.
        """
        position = getattr(model.config, "mm_newline_position", None)
        if position is not None:
            choice("mm_newline_position", position, NEWLINE_POSITIONS)
        return position

    def own_pooling(self, model: Any) -> Compressor:
        """Return bilinear pooling with stride 2."""
        return Bilinear(stride=2)
