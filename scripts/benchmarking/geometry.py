"""Sizes of models, and how many operations they need, by formula.

A multiplication and an addition count as two operations. Omitted terms (norms, activations, softmax, rotary
positions) is below a percent at the sizes of real models.
"""

from __future__ import annotations

from dataclasses import dataclass

from nano.miniature.checkpoint_format import PATCH_SIZE


@dataclass(frozen=True)
class Geometry:
    """Sizes of a model; everything else is as in LLaVA-Video-7B-Qwen2."""

    image_size: int  # side of the tower's input, in pixels
    vision_width: int
    vision_inner: int  # width inside a feed-forward block
    vision_layers: int  # as in the config; the model drops the last one
    vision_heads: int
    width: int
    inner: int
    layers: int
    heads: int
    key_value_heads: int
    vocabulary: int | None  # rows of the embeddings; None: as the tokenizer needs

    @property
    def patches(self) -> int:
        """Patches of an image."""
        return (self.image_size // PATCH_SIZE) ** 2

    @property
    def key_value_width(self) -> int:
        """Width of the keys, and of the values."""
        return self.width // self.heads * self.key_value_heads

    def vision_flops(self) -> int:
        """Operations of the vision tower for one image, the projector not included."""
        patches, width = self.patches, self.vision_width
        embedding = 2 * patches * width * 3 * PATCH_SIZE**2
        projections = 2 * patches * (4 * width**2 + 2 * width * self.vision_inner)
        attention = 4 * patches**2 * width  # every patch looks at every other: scores, then values
        return embedding + (self.vision_layers - 1) * (projections + attention)

    def prefill_flops(self, length: int) -> int:
        """Operations of the decoder for a prompt of `length` tokens, up to the last hidden state.

        Attention is counted for earlier positions only, which is half of all pairs.
        """
        width = self.width
        weights = 2 * width**2 + 2 * width * self.key_value_width + 3 * width * self.inner
        attention = 2 * length**2 * width
        return self.layers * (2 * length * weights + attention)


_SO400M = {"image_size": 384, "vision_width": 1152, "vision_inner": 4304, "vision_layers": 27, "vision_heads": 16}

# 0.5B and 7B are LLaVA-OneVision-0.5B and LLaVA-Video-7B, with a head of their own.
GEOMETRIES = {
    "tiny": Geometry(
        image_size=224,
        vision_width=192,
        vision_inner=768,
        vision_layers=5,
        vision_heads=3,
        width=384,
        inner=1536,
        layers=4,
        heads=6,
        key_value_heads=2,
        vocabulary=None,
    ),
    "0.5B": Geometry(**_SO400M, width=896, inner=4864, layers=24, heads=14, key_value_heads=2, vocabulary=151936),
    "7B": Geometry(**_SO400M, width=3584, inner=18944, layers=28, heads=28, key_value_heads=4, vocabulary=152064),
}
