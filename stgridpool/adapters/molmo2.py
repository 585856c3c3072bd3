"""Molmo2."""

from __future__ import annotations

from typing import Any, ClassVar

from stgridpool.adapters.adapter import Adapter, Clips, EncodedVisual, Inputs


class Molmo2Adapter(Adapter):
    """Molmo2: features are added to the embedding of their placeholder; each frame has a time stamp.

    Visual tokens attend to one another in both directions, as ``mm_token_type_ids`` tells the model.
    """

    model_types: ClassVar[tuple[str, ...]] = ("molmo2",)
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

    def encode(self, model: Any, inputs: Inputs, clips: Clips | None = None) -> list[EncodedVisual]:
        """Encode the videos."""
        arguments = [inputs[name] for name in self.video_inputs]
        features = model.model.get_video_features(*arguments, return_dict=True).pooler_output
        shapes = inputs["video_grids"].tolist()
        return [EncodedVisual(rows.unflatten(0, shape)) for rows, shape in zip(features, shapes, strict=True)]
