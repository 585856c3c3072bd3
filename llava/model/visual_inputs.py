"""VisualInputs: from pixels to the embeddings of a prompt, the multimodal half of the models.

Encoding (`VisualEncoding`) and splicing are separate steps, each usable on its own. A video can be encoded once and
used in any number of prompts.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from llava.encoded_video import EncodedVideo
from llava.mm_utils import get_anyres_image_grid_shape
from llava.model.anyres import max_tiles_of, merge_image
from llava.model.compression import Visual
from llava.model.own_pooling import pooling_compressor
from llava.model.splice import splice_batch
from llava.model.visual_encoding import VisualEncoding


class VisualInputs(VisualEncoding):
    """Mixin through which a language model reads images and videos; used by `LlavaQwenForCausalLM`."""

    def get_2dPool(self, image_feature: torch.Tensor, stride: int = 2) -> torch.Tensor:
        """Apply the checkpoint's own pooling to features (T, n*n, D): (T, m*m, D).

        `encode_video` does not call this method; set `compressor` to change how videos are compressed.
        """
        tokens, _ = pooling_compressor(self.config.mm_spatial_pool_mode, stride)(self._as_maps(image_feature))
        pooled: torch.Tensor = tokens.unflatten(0, (len(image_feature), -1))
        return pooled

    def add_token_per_grid(self, image_feature: torch.Tensor) -> torch.Tensor:
        """Insert a newline token after every row of every square map (T, m*m, D): (T*m*(m+1), D)."""
        side = round(image_feature.shape[1] ** 0.5)
        rows = image_feature.reshape(-1, side, image_feature.shape[2])  # (T*m, m, D)
        newline = self.model.image_newline.to(rows).expand(len(rows), 1, -1)
        return torch.cat([rows, newline], dim=1).flatten(0, 1)

    def add_token_per_frame(self, image_feature: torch.Tensor) -> torch.Tensor:
        """Append a newline token to every frame (T, N, D): (T, N + 1, D)."""
        newline = self.model.image_newline.to(image_feature).expand(len(image_feature), 1, -1)
        return torch.cat([image_feature, newline], dim=1)

    def encode_visuals(
        self,
        images: torch.Tensor | Sequence[Visual],
        modalities: str | Sequence[str] = ("image",),
        image_sizes: Sequence[Sequence[int]] | None = None,
    ) -> list[Visual]:
        """Encode each video, and each image to tokens (L_i, D); encoded visuals stay unchanged.

        Args:
            images: A list, or a tensor with one more dimension, of videos (T, 3, S, S), tiled images (1 + k, 3, S, S)
                and images (3, S, S) or (1, 3, S, S); videos may be `EncodedVideo`, images tokens (L, D). A tensor
                (B, 3, S, S) is B plain images, which become their features, without newline tokens or pooling.
            modalities: `image` or `video` for each visual; missing entries mean `image`. A single string is for all.
            image_sizes: (width, height) of each image in pixels.
        """
        if isinstance(images, torch.Tensor) and images.ndim == 4:
            return list(self.encode_images(images))
        words = [modalities] * len(images) if isinstance(modalities, str) else list(modalities)
        words += ["image"] * (len(images) - len(words))
        sizes = list(image_sizes or [])
        visuals: list[Visual] = []
        for index, (image, word) in enumerate(zip(images, words, strict=False)):
            if isinstance(image, EncodedVideo) or image.ndim == 2:
                visuals.append(image)
            elif word == "video":
                visuals.append(self.encode_video(image[None] if image.ndim == 3 else image))
            else:
                size = sizes[index] if index < len(sizes) else None
                visuals.append(self._encode_image(image[None] if image.ndim == 3 else image, size))
        return visuals

    def _encode_image(self, tiles: torch.Tensor, image_size: Sequence[int] | None) -> torch.Tensor:
        tower, mode = self.get_vision_tower(), getattr(self.config, "image_aspect_ratio", None) or ""
        size = None if image_size is None else (int(image_size[0]), int(image_size[1]))
        grid = (2, 2)
        if size is not None and (mode == "anyres" or "anyres_max" in mode):
            grid = get_anyres_image_grid_shape(size, self.config.image_grid_pinpoints, tower.image_size)
        return merge_image(
            self.encode_images(tiles),
            tower.num_patches_per_side,
            self.config.mm_patch_merge_type,
            newline=self.model.image_newline,
            grid=grid,
            image_size=size,
            max_tiles=max_tiles_of(mode),
        )

    def encode_prompts(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None,
        images: torch.Tensor | Sequence[Visual] | None,
        modalities: str | Sequence[str],
        image_sizes: Sequence[Sequence[int]] | None,
    ) -> tuple[torch.Tensor | Sequence[Visual] | None, AbstractContextManager[Any]]:
        """Encode the visuals of a batch of prompts, and return them with the block to run the prompts in.

        For the block see `compressing`. The arguments are those of `prepare_inputs_labels_for_multimodal`, which takes
        the visuals as its `images`.
        """
        if self.decoder_steps is None or images is None or not len(images) or input_ids.shape[1] == 1:
            return images, nullcontext()
        visuals = self.encode_visuals(images, modalities, image_sizes)
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        rows = [row[real.bool()] for row, real in zip(input_ids, mask, strict=True)]
        return visuals, self.compressing(rows, visuals)

    def prepare_inputs_labels_for_multimodal(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        past_key_values: Any,
        labels: torch.Tensor | None,
        images: torch.Tensor | Sequence[Visual] | None,
        modalities: str | Sequence[str] = ("image",),
        image_sizes: Sequence[Sequence[int]] | None = None,
        padding_side: str | None = None,
    ) -> tuple[Any, ...]:
        """Replace ids by embeddings, and placeholders by images and videos.

        Args:
            input_ids: (B, n) ids with a placeholder for each image or video.
            position_ids: (B, n) or None.
            attention_mask: (B, n) or None.
            past_key_values: Returned unchanged.
            labels: (B, n) or None.
            images: See `encode_visuals`; None or empty for text.
            modalities: See `encode_visuals`.
            image_sizes: See `encode_visuals`.
            padding_side: Side on which shorter rows are padded; None for the checkpoint's `tokenizer_padding_side`.

        Returns:
            None, position ids, attention mask, past_key_values, embeddings (B, L, D) and labels. Arguments that are
            None stay None. Without images, or for a single id, all arguments are returned unchanged, with None for
            embeddings.
        """
        if images is None or not len(images) or input_ids.shape[1] == 1:
            return input_ids, position_ids, attention_mask, past_key_values, None, labels
        visuals = self.encode_visuals(images, modalities, image_sizes)
        batch = splice_batch(
            input_ids,
            [visual.embeds if isinstance(visual, EncodedVideo) else visual for visual in visuals],
            self.get_input_embeddings(),
            attention_mask=attention_mask,
            labels=labels,
            max_length=self.config.tokenizer_model_max_length,
            padding_side=padding_side or self.config.tokenizer_padding_side,
        )
        return (
            None,
            None if position_ids is None else batch.position_ids,
            None if attention_mask is None else batch.attention_mask.to(attention_mask.dtype),
            past_key_values,
            batch.embeds,
            None if labels is None else batch.labels,
        )
