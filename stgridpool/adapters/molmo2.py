"""Molmo2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from stgridpool.adapters.adapter import Adapter, Clips, EncodedVisual, Inputs
from stgridpool.plan import Shape


class Molmo2Adapter(Adapter):
    """Molmo2: features are added to the embedding of their placeholder; each frame has a time stamp.

    Visual tokens attend to one another in both directions, as ``mm_token_type_ids`` tells the model.
    """

    model_types: ClassVar[tuple[str, ...]] = ("molmo2",)
    encodes_frames_alone: ClassVar[bool] = True
    tower_name: ClassVar[str] = "vision_tower"
    video_inputs: ClassVar[tuple[str, ...]] = ("pixel_values_videos", "video_token_pooling", "video_grids")
    image_inputs: ClassVar[tuple[str, ...]] = (
        "pixel_values",
        "image_token_pooling",
        "image_grids",
        "image_num_crops",
    )
    row_inputs: ClassVar[tuple[str, ...]] = ("mm_token_type_ids",)
    is_one_run: ClassVar[bool] = False
    adds: ClassVar[bool] = True
    attends_both_ways: ClassVar[bool] = True

    def encode(self, model: Any, inputs: Inputs, clips: Clips | None = None) -> list[EncodedVisual]:
        """Encode the videos."""
        arguments = [inputs[name] for name in self.video_inputs]
        features = model.model.get_video_features(*arguments, return_dict=True).pooler_output
        shapes = inputs["video_grids"].tolist()
        return [EncodedVisual(rows.unflatten(0, shape)) for rows, shape in zip(features, shapes, strict=True)]

    def source_shape(self, model: Any, video: Inputs) -> Shape:
        """Return (T, H, W) of the tokens."""
        ((frames, height, width),) = video["video_grids"].tolist()
        return frames, height, width

    def tower_rows(
        self, model: Any, inputs: Inputs, kind: str, rows: Tensor, visuals: Sequence[EncodedVisual]
    ) -> list[Tensor]:
        """Assign rows of patches to tokens by the table that says which patches each token pools; -1 pads it."""
        pooled: Tensor = inputs["video_token_pooling"].to(rows.device)  # (N, patches per token)
        flat = rows.flatten(1) if rows.dim() > 1 else rows[:, None]
        weight = (pooled >= 0).to(flat.dtype)[..., None]
        means = (flat[pooled.clamp_min(0)] * weight).sum(1) / weight.sum(1)
        return super().tower_rows(model, inputs, kind, means.reshape(-1, *rows.shape[1:]), visuals)
