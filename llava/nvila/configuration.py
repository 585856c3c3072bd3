"""NvilaConfig: the configuration of an NVILA checkpoint, in the terms of LLaVA's and with what only NVILA has."""

from typing import Any

from llava.model.language_model.llava_qwen import LlavaQwenConfig
from llava.nvila.layout import VIDEO
from llava.nvila.tiles import DYNAMIC, DYNAMIC_S2

RESIZE, PAD = "resize", "pad"
ASPECT_RATIOS = (RESIZE, PAD, DYNAMIC, DYNAMIC_S2)


class NvilaConfig(LlavaQwenConfig):
    """Configuration of an NVILA checkpoint; for other attributes see `LlavaQwenConfig`.

    Attributes:
        image_aspect_ratio: How a single image is shown, one of `ASPECT_RATIOS`; the last two cut it into tiles.
        min_tiles: Minimum number of tiles of a single image.
        max_tiles: Maximum number of tiles of a single image.
        dynamic_s2: Whether the projector reads the features of several scales, side by side.
        s2_scales: Sides of a single image at these scales, in pixels, ascending; the first one is the tower's input.
        s2_resize_output_to_scale_idx: The scale, by its index, to whose map the maps of all scales are resized.
        num_video_frames: Number of frames sampled from a video.
        video_encoding: "video": the video encoder, which may pool over time, as in the papers; "frames": every frame as
            an image, without pooling over time, as the official code since May 2025.
        image_start_ids: Tokens before an image, or of a tile.
        image_end_ids: Tokens after an image, or after a tile.
        tile_end_ids: Further tokens between the tiles of an image.
        video_start_ids: Tokens before every frame.
        video_end_ids: Tokens after every frame.
        video_sep_ids: Tokens after the frames of each pooling.
        pool_sizes: See `BlockAverage`; none without pooling.
    """

    model_type = "nvila"

    image_aspect_ratio: str = RESIZE
    min_tiles: int = 1
    max_tiles: int = 12
    dynamic_s2: bool = False
    s2_scales: list[int] | None = None
    s2_resize_output_to_scale_idx: int = 0
    num_video_frames: int = 8
    video_encoding: str = VIDEO
    image_start_ids: list[int] | None = None
    image_end_ids: list[int] | None = None
    tile_end_ids: list[int] | None = None
    video_start_ids: list[int] | None = None
    video_end_ids: list[int] | None = None
    video_sep_ids: list[int] | None = None
    pool_sizes: list[Any] | None = None

    @property
    def features_per_patch(self) -> int:
        """Number of scales if the projector reads several, else 1."""
        return len(self.s2_scales or ()) if self.dynamic_s2 else 1
