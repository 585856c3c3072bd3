"""GLM-4V, dense and with experts."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from stgridpool.adapters.adapter import IMAGE, VIDEO, Inputs
from stgridpool.adapters.qwen3_5 import Qwen3_5Adapter


class Glm4vAdapter(Qwen3_5Adapter):
    """GLM-4V: frames are runs of the placeholder of images, each followed by its time in seconds.

    The processor's ``mm_token_type_ids`` tell images (1) from frames of videos (2).
    """

    model_types: ClassVar[tuple[str, ...]] = ("glm4v", "glm4v_moe")
    video_inputs: ClassVar[tuple[str, ...]] = ("pixel_values_videos", "video_grid_thw")

    def slots(self, model: Any, inputs: Inputs, kind: str = VIDEO) -> Tensor:
        """Tell which positions are placeholders of videos, or of images: (B, L) bool."""
        kinds: Tensor = inputs["mm_token_type_ids"]
        return kinds == {IMAGE: 1, VIDEO: 2}[kind]
