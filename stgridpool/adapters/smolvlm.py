"""SmolVLM."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from stgridpool.adapters.adapter import Inputs
from stgridpool.adapters.frames_as_images import FramesAsImagesAdapter


class SmolVLMAdapter(FramesAsImagesAdapter):
    """SmolVLM: every frame is a picture after its time stamp, 8 x 8 or 9 x 9 tokens as released."""

    model_types: ClassVar[tuple[str, ...]] = ("smolvlm",)
    encodes_frames_alone: ClassVar[bool] = True
    tower_name: ClassVar[str] = "vision_model"
    lists_per_prompt: ClassVar[bool] = True
    sampling: ClassVar[Mapping[str, float]] = {"fps": 1, "num_frames": 64}
    video_inputs: ClassVar[tuple[str, ...]] = ("pixel_values", "pixel_attention_mask")

    def pictures(self, model: Any, inputs: Inputs) -> Tensor:
        """Encode all pictures: (F, H * W, D); transformers 5.17 has one tensor for the batch."""
        masks = inputs.get("pixel_attention_mask")
        features = model.get_image_features(inputs["pixel_values"], masks, return_dict=True).pooler_output
        rows = torch.cat([prompt.flatten(0, -2) for prompt in features])
        return rows.reshape(-1, model.model.image_seq_len, rows.shape[-1])

    def side(self, model: Any) -> int:
        """Return the number of tokens along a side of a picture."""
        return math.isqrt(model.model.image_seq_len)
