"""What decides the number of tokens of a video, from an NVILA checkpoint's settings alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llava.model.known_towers import patches_per_side
from llava.model.projector import DOWNSAMPLING
from llava.nvila.encoders import MediaEncoder
from llava.nvila.layout import FRAMES, PARTS, VIDEO
from llava.nvila.own_pooling import BlockAverage
from stgridpool import Compressor, NoCompression


@dataclass(frozen=True)
class VideoCounts:
    """The tokens of a video, without a model.

    Attributes:
        own_pooling: The pooling of the video encoder.
        side: Side of the map that the projector outputs.
        newline_position: Where newline tokens stand.
        longest: Longest prompt, in positions; None if the language model's settings do not say.
    """

    own_pooling: Compressor
    side: int
    newline_position: str
    longest: int | None

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "VideoCounts | None":
        """Read them from the settings of a checkpoint's config.json, and what takes precedence over them.

        Returns:
            None if the settings of a part or a size is left out, or videos are pooled in several ways.

        Raises:
            ValueError: If an encoder is not supported.
        """
        llm, tower, projector = (settings[f"{part}_cfg"] for part in PARTS)
        if not all(isinstance(part, Mapping) for part in (llm, tower, projector)):
            return None
        frames_are_images = settings.get("video_encoding", VIDEO) == FRAMES
        key = "image_encoder" if frames_are_images else "video_encoder"
        encoder = MediaEncoder.of(key, settings.get(key), "config.json")
        patches = patches_per_side({"vision_config": tower})
        if patches is None or len(encoder.pool_sizes) > 1:
            return None
        position = settings.get("mm_newline_position", "frame")
        if position == "frame" and not (encoder.start or encoder.end or encoder.sep):
            position = "no_token"
        return cls(
            BlockAverage(encoder.pool_sizes) if encoder.pool_sizes else NoCompression(),
            -(-patches // DOWNSAMPLING.get(str(projector.get("mm_projector_type")), 1)),
            position,
            settings.get("max_position_embeddings", llm.get("max_position_embeddings")),
        )
