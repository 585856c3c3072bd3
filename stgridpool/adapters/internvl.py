"""InternVL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from stgridpool.adapters.adapter import Inputs
from stgridpool.adapters.frames_as_images import FramesAsImagesAdapter


class InternVLAdapter(FramesAsImagesAdapter):
    """InternVL: every frame is a picture, 16 x 16 tokens as released; an image is one picture or several tiles."""

    model_types: ClassVar[tuple[str, ...]] = ("internvl",)
    encodes_frames_alone: ClassVar[bool] = True
    tower_name: ClassVar[str] = "vision_tower"
    sampling: ClassVar[Mapping[str, float]] = {"num_frames": 8}

    def pictures(self, model: Any, inputs: Inputs) -> Tensor:
        """Encode all pictures: (F, H * W, D)."""
        pictures: Tensor = model.get_image_features(inputs["pixel_values"], return_dict=True).pooler_output
        return pictures

    def side(self, model: Any) -> int:
        """Return the number of tokens along a side of a picture: several patches are a token."""
        size, patch = (getattr(model.config.vision_config, name) for name in ("image_size", "patch_size"))
        size, patch = (one if isinstance(one, int) else one[0] for one in (size, patch))
        return int(size // patch * model.config.downsample_ratio)
