"""Qwen2-VL and Qwen2.5-VL."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from stgridpool.adapters.adapter import HF, IMAGE, VIDEO, Adapter, Clips, EncodedVisual, Inputs
from stgridpool.adapters.mrope import Grid, mrope_positions
from stgridpool.plan import Shape


class Qwen2VLAdapter(Adapter):
    """Qwen2-VL and Qwen2.5-VL: four patches were merged into each token, and there is no pooling after that.

    In their towers, and in those of the families that inherit from them, patches attend within two frames only.
    "patches" and "tokens" are the same place, the merged grid. Positions have three axes: time, row and column.
    """

    model_types: ClassVar[tuple[str, ...]] = ("qwen2_vl", "qwen2_5_vl")
    encodes_frames_alone: ClassVar[bool] = True
    tower_name: ClassVar[str] = "visual"
    video_inputs: ClassVar[tuple[str, ...]] = ("pixel_values_videos", "video_grid_thw", "second_per_grid_ts")
    image_inputs: ClassVar[tuple[str, ...]] = ("pixel_values", "image_grid_thw")
    sampling: ClassVar[Mapping[str, float]] = {"fps": 2}
    position_inputs: ClassVar[tuple[str, ...]] = ("mm_token_type_ids",)

    def encode(self, model: Any, inputs: Inputs, clips: Clips | None = None) -> list[EncodedVisual]:
        """Encode the videos; tokens are in raster order."""
        output = model.get_video_features(inputs["pixel_values_videos"], inputs["video_grid_thw"], return_dict=True)
        return self.encoded(output, self.shapes(model, inputs, VIDEO))

    def encode_images(self, model: Any, inputs: Inputs) -> list[EncodedVisual]:
        """Encode the images."""
        output = model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"], return_dict=True)
        return self.encoded(output, self.shapes(model, inputs, IMAGE))

    def encoded(self, output: Any, shapes: Sequence[tuple[int, int, int]]) -> list[EncodedVisual]:
        """Take the tokens of visuals of these shapes from the output of the vision part."""
        return [
            EncodedVisual(rows.unflatten(0, shape)) for rows, shape in zip(output.pooler_output, shapes, strict=True)
        ]

    def shapes(self, model: Any, inputs: Inputs, kind: str) -> list[tuple[int, int, int]]:
        """Return (T, H, W) of the tokens of each video or image."""
        grids = inputs.get(f"{kind}_grid_thw")
        side = model.config.vision_config.spatial_merge_size
        return [] if grids is None else [(frames, rows // side, cols // side) for frames, rows, cols in grids.tolist()]

    def source_shape(self, model: Any, video: Inputs) -> Shape:
        """Return (T, H, W) of the tokens."""
        return self.shapes(model, video, VIDEO)[0]

    def tower_rows(
        self, model: Any, inputs: Inputs, kind: str, rows: Tensor, visuals: Sequence[EncodedVisual]
    ) -> list[Tensor]:
        """Assign rows of patches to visuals; four make a token, and those of Qwen2.5-VL come window by window."""
        config = model.config.vision_config
        window = getattr(config, "window_size", None)
        if window is not None:
            from transformers.vision_utils import get_vision_window_index  # noqa: PLC0415  # other families need none

            grid, merged = inputs[f"{kind}_grid_thw"], config.spatial_merge_size
            order, _ = get_vision_window_index(grid, merged, window, config.patch_size)
            rows = rows.unflatten(0, (len(order), -1))[order.argsort().to(rows.device)].flatten(0, 1)
        return super().tower_rows(model, inputs, kind, rows, visuals)

    def grids(self, model: Any, inputs: Inputs, kind: str) -> list[Grid]:
        """Return what positions are counted from: shape and time step of each segment of visual tokens."""
        rate = getattr(model.config.vision_config, "tokens_per_second", None)
        shapes = self.shapes(model, inputs, kind)
        seconds = inputs.get("second_per_grid_ts")
        if kind == IMAGE or rate is None or seconds is None:
            return [Grid(shape, float(rate or 1) if kind == VIDEO else 1.0) for shape in shapes]
        steps = [rate * float(one) for one in seconds]
        return [Grid(shape, step) for shape, step in zip(shapes, steps, strict=True)]

    def positions(self, model: Any, inputs: Inputs, kind: str) -> Tensor:
        """Return positions (3, B, L)."""
        ids: Tensor = inputs["input_ids"]
        kinds = self.slots(model, inputs, IMAGE).int() + 2 * self.slots(model, inputs, VIDEO).int()
        mask = inputs.get("attention_mask")
        mask = torch.ones_like(ids) if mask is None else mask
        if kind == HF:
            named: dict[str, Any] = {**inputs, "mm_token_type_ids": kinds, "attention_mask": mask}
            known = inspect.signature(model.model.get_rope_index).parameters
            positions: Tensor = model.model.get_rope_index(
                **{name: named.get(name) for name in known if name in named}
            )[0]
            return positions
        segments = {1: iter(self.grids(model, inputs, IMAGE)), 2: iter(self.grids(model, inputs, VIDEO))}
        return mrope_positions(kinds, mask.bool(), segments)
