"""VideoLLaMA3."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from stgridpool.adapters.adapter import Adapter, Clips, EncodedVisual, Inputs
from stgridpool.plan import Shape


class VideoLlama3Adapter(Adapter):
    """VideoLLaMA3: each frame has a time stamp; its processor drops tokens that equal those of the frame before.

    Dropped tokens have no placeholder: methods see the remaining tokens at their places in the lattice.
    """

    model_types: ClassVar[tuple[str, ...]] = ("video_llama_3",)
    encodes_frames_alone: ClassVar[bool] = True
    tower_name: ClassVar[str] = "vision_model"
    sampling: ClassVar[Mapping[str, float]] = {"fps": 1}
    video_inputs: ClassVar[tuple[str, ...]] = (
        "pixel_values_videos",
        "video_grid_thw",
        "video_merge_sizes",
        "video_compression_mask",
    )
    image_inputs: ClassVar[tuple[str, ...]] = ("pixel_values", "image_grid_thw", "image_merge_sizes")
    is_one_run: ClassVar[bool] = False
    blank_options: ClassVar[Mapping[str, Any]] = {"use_token_compression": False}

    def encode(self, model: Any, inputs: Inputs, clips: Clips | None = None) -> list[EncodedVisual]:
        """Encode the videos, dropped tokens included."""
        arguments = [inputs[name] for name in self.video_inputs[:3]]
        visuals = _visuals(model.model.get_video_features(*arguments, return_dict=True), *arguments[1:])
        mask: Tensor | None = inputs.get("video_compression_mask")
        if mask is None:
            return visuals
        masks = mask.split([visual.tokens.shape[:3].numel() for visual in visuals])
        return [
            EncodedVisual(visual.tokens, kept=kept.nonzero().flatten())
            for visual, kept in zip(visuals, masks, strict=True)
        ]

    def source_shape(self, model: Any, video: Inputs) -> Shape:
        """Return (T, H, W) of the tokens, those that the processor drops included."""
        (shape,) = _shapes(video["video_grid_thw"], video["video_merge_sizes"])
        return shape

    def kept_tokens(self, video: Inputs) -> int | None:
        """Return the number of tokens that differ from those of the frame before."""
        mask: Tensor = video["video_compression_mask"]
        return int(mask.sum())

    def encode_images(self, model: Any, inputs: Inputs) -> list[EncodedVisual]:
        """Encode the images."""
        arguments = [inputs[name] for name in self.image_inputs]
        return _visuals(model.model.get_image_features(*arguments, return_dict=True), *arguments[1:])


def _visuals(output: Any, grids: Tensor, sides: Tensor) -> list[EncodedVisual]:
    """Take the tokens from the output of the vision part, given patches (n, 3) and merged patches along a side (n,)."""
    shapes = _shapes(grids, sides)
    return [EncodedVisual(rows.unflatten(0, shape)) for rows, shape in zip(output.pooler_output, shapes, strict=True)]


def _shapes(grids: Tensor, sides: Tensor) -> list[Shape]:
    """Return (T, H, W) of the tokens of each video or image."""
    found: list[list[int]] = torch.stack([grids[:, 0], grids[:, 1] // sides, grids[:, 2] // sides], dim=1).tolist()
    return [(frames, height, width) for frames, height, width in found]
