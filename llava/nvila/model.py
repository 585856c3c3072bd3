"""NvilaForCausalLM: an NVILA model, which differs from LLaVA in how it encodes images and lays out videos."""

from collections.abc import Sequence

import torch

from llava.encoded_video import EncodedVideo
from llava.model.compression import Visual
from llava.model.language_model.llava_qwen import LlavaQwenForCausalLM
from llava.model.projector import DOWNSAMPLING
from llava.nvila.configuration import NvilaConfig
from llava.nvila.dynamic_s2 import join_scales, scale_blocks, stitched
from llava.nvila.layout import FRAMES
from llava.nvila.own_pooling import BlockAverage
from llava.nvila.tiles import DYNAMIC_S2, s2_blocks
from llava.nvila.token_layout import TokenLayout
from stgridpool import Compressor, Evidence, NoCompression, Plan, Shape, VideoTokens
from stgridpool.compressor import PATCHES
from stgridpool.evidence import through
from stgridpool.frames.layout import lay_out
from stgridpool.frames.patterns import pooling_windows


class NvilaForCausalLM(LlavaQwenForCausalLM):
    """A Qwen2 language model with NVILA's projector and encoders; a compressor acts on what the projector outputs."""

    config_class = NvilaConfig
    config: NvilaConfig

    def __init__(self, config: NvilaConfig) -> None:
        super().__init__(config)
        last = (config.vision_config or {}).get("num_hidden_layers", 27) - 1
        # Checkpoints hold all layers of the tower, and the features are the output of the last but one.
        self._keys_to_ignore_on_load_unexpected = {rf"\bvision_tower\..*encoder\.layers\.{last}\."}

    @property
    def own_pooling(self) -> Compressor:
        """The pooling of the video encoder; none if frames are encoded as images, or it pools nothing."""
        sizes = () if self.config.video_encoding == FRAMES else self.config.pool_sizes or ()
        return BlockAverage(tuple(tuple(size) for size in sizes)) if sizes else NoCompression()

    @property
    def projected_side(self) -> int:
        """Side of the map that the projector outputs; it joins squares of patches."""
        return -(-self.get_vision_tower().num_patches_per_side // self._joined)

    @property
    def _joined(self) -> int:
        return DOWNSAMPLING.get(self.config.mm_projector_type, 1)

    def for_projector(self, features: torch.Tensor) -> torch.Tensor:
        """Repeat features (B, n*n, C) for every scale, unless they are those of several scales already."""
        count = self.config.features_per_patch
        is_one_scale = features.shape[2] == self.get_vision_tower().hidden_size
        return features.repeat(1, 1, count) if is_one_scale and count > 1 else features

    def evidence_on_map(self, evidence: Evidence, num_frames: int) -> Evidence:
        """Average evidence about patches over the squares that the projector joins."""
        if self._joined == 1 or not any(need.per_token for need in evidence):
            return evidence
        side, joined = self.get_vision_tower().num_patches_per_side, (self._joined, self._joined)
        squares = pooling_windows((side, side), joined, joined, (0, 0), ceil_mode=True)
        device = next(value.device for need, value in evidence.items() if need.per_token)
        return through(evidence, lay_out(squares.pattern, (num_frames, side, side), device))

    def newline_position(self) -> str:
        """Return where videos get newline tokens: after every frame, unless the encoder or an option differs."""
        position, layout = self.config.mm_newline_position, self._video_layout()
        return "no_token" if position == "frame" and layout.is_plain and not len(layout.end) else position

    def lay_out(self, tokens: VideoTokens, plan: Plan, source_shape: Shape) -> EncodedVideo:
        """Put the tokens of the encoder around the frames of a video; for the arguments see `EncodedVideo`.

        In place of the checkpoint's own pooling, a compressor gets the tokens after every frame only, as in
        ST-GridPool's released code. Another `mm_newline_position` moves the one token after every frame.

        Raises:
            ValueError: If there is another position, and more or other tokens than one after every frame.
        """
        layout, position = self._video_layout(), self.newline_position()
        if not any(step.place == PATCHES and step.compressor == self.own_pooling for step in self.front_steps):
            layout = TokenLayout(layout.start[:0], layout.end, layout.sep[:0])
        if layout.is_plain:
            newline = layout.end[0] if len(layout.end) else None
            position = "no_token" if newline is None and position == "frame" else position
            return EncodedVideo.of(tokens, plan, source_shape, newline, position)
        if position != "frame":
            raise ValueError(
                f"mm_newline_position={position} moves one token after every frame, and the video_encoder "
                f"has {len(layout.start)} before and {len(layout.end)} after every frame: leave it out"
            )
        embeds, positions = layout.lay_out(tokens)
        added = len(embeds) - len(tokens)
        return EncodedVideo(embeds, plan, source_shape, tokens.shape, tokens.cell, added, position, positions=positions)

    def own_counts(self, num_frames: int) -> tuple[int, int]:
        """Count the visual and other tokens of `num_frames` frames after the checkpoint's own pooling."""
        pooling, layout = self.own_pooling, self._video_layout()
        if not isinstance(pooling, BlockAverage) or self.newline_position() != "frame":
            tokens, newlines = super().own_counts(num_frames)
            return tokens, newlines if layout.is_plain else layout.count((num_frames,))
        frames = pooling.num_frames((num_frames, self.projected_side, self.projected_side))
        return pooling.num_tokens((num_frames, self.projected_side, self.projected_side)), layout.count(frames)

    def encode_visuals(
        self,
        images: torch.Tensor | Sequence[Visual],
        modalities: str | Sequence[str] = ("image",),
        image_sizes: Sequence[Sequence[int]] | None = None,
    ) -> list[Visual]:
        """Encode each video and image; a tensor (B, 3, S, S) is B images of one tile. See `VisualInputs`."""
        plain = isinstance(images, torch.Tensor) and images.ndim == 4
        return super().encode_visuals(list(images) if plain else images, modalities, image_sizes)

    def _encode_image(self, tiles: torch.Tensor, image_size: Sequence[int] | None) -> torch.Tensor:
        """Encode the tiles (k, 3, S, S) of an image of (width, height), and put the tokens of the encoder around."""
        config = self.config
        layout = self._layout(config.image_start_ids, config.image_end_ids)
        if len(tiles) > 1 and config.image_aspect_ratio == DYNAMIC_S2:
            return layout.around(self._encode_scales(tiles, image_size))
        encoded = [layout.around(tile) for tile in self.encode_images(tiles)]
        between = self._embedded(config.tile_end_ids).to(encoded[0])
        return torch.cat([part for tile in encoded for part in (between, tile)][1:])

    def _encode_scales(self, tiles: torch.Tensor, image_size: Sequence[int] | None) -> torch.Tensor:
        """Encode the tiles of an image at all scales, and return its tokens (L, D), row by row."""
        scales = self.config.s2_scales or []
        if image_size is None:
            raise ValueError("an image of several scales needs its size: pass image_sizes, (width, height) in pixels")
        blocks = s2_blocks((int(image_size[0]), int(image_size[1])), scales, self.config.max_tiles)
        features, _ = self.vision_features(tiles)
        grids = scale_blocks(scales, blocks)
        joined, grid = join_scales(features, grids, self.config.s2_resize_output_to_scale_idx)
        return stitched(self.project(joined), grid).flatten(0, 1)

    def _video_layout(self) -> TokenLayout:
        config = self.config
        if config.video_encoding == FRAMES:
            return self._layout(config.image_start_ids, config.image_end_ids)
        return self._layout(config.video_start_ids, config.video_end_ids, config.video_sep_ids)

    def _layout(self, start: list[int] | None, end: list[int] | None, sep: list[int] | None = None) -> TokenLayout:
        return TokenLayout(*map(self._embedded, (start, end, sep)))

    def _embedded(self, ids: list[int] | None) -> torch.Tensor:
        embeddings = self.get_input_embeddings()
        embeds: torch.Tensor = embeddings(torch.tensor(ids or [], dtype=torch.long, device=embeddings.weight.device))
        return embeds
