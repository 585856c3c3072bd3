"""LLaVA-NeXT-Video."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from stgridpool.adapters.adapter import Adapter, Clips, EncodedVisual, Inputs
from stgridpool.adapters.token_blocks import blocks_of_tokens
from stgridpool.plan import Shape


class LlavaNextVideoAdapter(Adapter):
    """LLaVA-NeXT-Video: frames are pooled to half the side before the projector, 24 x 24 to 12 x 12 as released.

    "patches" and "tokens" are the same place, since features before the projector are not tokens yet. Images are
    tiles with newline tokens between their rows; they stay as they are.
    """

    model_types: ClassVar[tuple[str, ...]] = ("llava_next_video",)
    encodes_frames_alone: ClassVar[bool] = True
    tower_name: ClassVar[str] = "vision_tower"
    image_inputs: ClassVar[tuple[str, ...]] = ("pixel_values", "image_sizes")

    def encode(self, model: Any, inputs: Inputs, clips: Clips | None = None) -> list[EncodedVisual]:
        """Encode the videos; each has (T * H * W, D) tokens, or (T, H * W, D) in transformers 5.17."""
        pixels: Tensor = inputs["pixel_values_videos"]
        frames = pixels.shape[1]
        features = model.get_video_features(pixels, return_dict=True).pooler_output
        return [EncodedVisual(_lattice(rows.reshape(frames, -1, rows.shape[-1]))) for rows in features]

    def source_shape(self, model: Any, video: Inputs) -> Shape:
        """Return (T, H, W) of the pooled tokens."""
        frames, height, width = super().source_shape(model, video)
        stride = model.config.spatial_pool_stride
        return frames, height // stride, width // stride

    def tower_rows(
        self, model: Any, inputs: Inputs, kind: str, rows: Tensor, visuals: Sequence[EncodedVisual]
    ) -> list[Tensor]:
        """Assign rows of patches to visuals; four make a token, and the first row of a frame is its class token's."""
        side = visuals[0].tokens.shape[2]
        patches = math.isqrt(rows.shape[0] // sum(visual.tokens.shape[0] for visual in visuals)) ** 2
        rows = rows.unflatten(0, (-1, patches + 1))[:, 1:].flatten(0, 1)
        return super().tower_rows(model, inputs, kind, blocks_of_tokens(rows, side, patches), visuals)


def _lattice(frames: Tensor) -> Tensor:
    """Lay the tokens (T, H * W, D) of square frames out as (T, H, W, D)."""
    side = math.isqrt(frames.shape[1])
    lattice: Tensor = frames.unflatten(1, (side, side))
    return lattice
