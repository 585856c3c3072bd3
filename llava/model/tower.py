"""Vision towers on transformers: SigLIP and CLIP encoders that compute one feature per patch."""

from functools import partial
from typing import Any

import torch
from transformers import CLIPVisionModel, SiglipVisionModel

from llava.image_processing import CLIP_MEAN, CLIP_STD, VisionImageProcessor
from llava.model.pool_head import load_pool_head
from llava.model.text_tower import load_clip_text, load_siglip_text
from llava.model.tower_base import TowerParts, VisionTower, check_select_feature
from llava.model.tower_evidence import AttentionLayer, TowerEvidence, split_heads
from llava.model.tower_files import pretrained_weights

__all__ = ["ClipTower", "SiglipTower", "TowerParts", "VisionTower", "check_select_feature"]


class SiglipTower(VisionTower):
    """SigLIP without its last layer, last normalisation and head; LLaVA-NeXT trains on these features.

    Args:
        name: The checkpoint's `mm_vision_tower`.
        config: Geometry of the whole encoder, a `SiglipVisionConfig`.
    """

    def __init__(self, name: str, config: Any) -> None:
        config.num_hidden_layers -= 1
        config.vision_use_head = False
        processor = VisionImageProcessor(config.image_size)
        super().__init__(name, SiglipVisionModel(config), processor, config.patch_size, config.hidden_size)

    def features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Compute the output of the last layer that is kept."""
        embeds = self.vision_tower.embeddings(pixel_values)
        features: torch.Tensor = self.vision_tower.encoder(inputs_embeds=embeds).last_hidden_state
        return features

    def parts(self) -> TowerParts:
        """See the base class."""
        return TowerParts(self.vision_tower.embeddings, self.vision_tower.encoder.layers, lambda hidden: hidden)

    def evidence(self) -> TowerEvidence:
        """See the base class."""
        layers = [_attention_layer(layer) for layer in self.vision_tower.encoder.layers]
        return TowerEvidence(self.name, layers, self.num_patches, may_have_pool_head=True, pool_head=self.pool_head)

    def load_pool_head(self, source: str) -> None:
        """See the base class."""
        self.pool_head = load_pool_head(source, self.vision_tower)

    def load_text_tower(self, source: str) -> None:
        """See the base class."""
        self.text_tower = load_siglip_text(source, self.hidden_size, self.dtype)

    def named_weights(self) -> dict[str, torch.Tensor]:
        """See the base class."""
        return pretrained_weights(SiglipVisionModel, self.name, self.vision_tower)


class ClipTower(VisionTower):
    """CLIP up to a hidden layer.

    Args:
        name: The checkpoint's `mm_vision_tower`.
        config: Geometry, a `CLIPVisionConfig`.
        select_layer: Index into the hidden states (0: embeddings, -1: after the last layer).
        select_feature: `patch` for features without the class token, `cls_patch` for features with it.

    Raises:
        ValueError: If `select_layer` or `select_feature` does not exist.
    """

    def __init__(self, name: str, config: Any, select_layer: int, select_feature: str) -> None:
        num_layers = config.num_hidden_layers
        if not -num_layers - 1 <= select_layer <= num_layers:
            raise ValueError(
                f"mm_vision_select_layer must be a layer of the {num_layers} of {name}, got {select_layer}"
            )
        check_select_feature(select_feature, ("patch", "cls_patch"))
        processor = VisionImageProcessor(config.image_size, CLIP_MEAN, CLIP_STD, keep_aspect=True)
        super().__init__(name, CLIPVisionModel(config), processor, config.patch_size, config.hidden_size)
        self.num_layers_run = range(num_layers + 1)[select_layer]
        self.first_token = 1 if select_feature == "patch" else 0

    def features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Compute the selected hidden state; later layers are not run."""
        begin, layers, finish = self.parts()
        hidden = begin(pixel_values)
        for layer in layers:
            hidden = layer(hidden, attention_mask=None)
        return finish(hidden)

    def parts(self) -> TowerParts:
        """See the base class."""
        tower = self.vision_tower
        return TowerParts(
            lambda pixels: tower.pre_layrnorm(tower.embeddings(pixels)),
            tower.encoder.layers[: self.num_layers_run],
            lambda hidden: hidden[:, self.first_token :],
        )

    def evidence(self) -> TowerEvidence:
        """See the base class."""
        layers = [_attention_layer(layer) for layer in self.vision_tower.encoder.layers[: self.num_layers_run]]
        return TowerEvidence(
            self.name,
            layers,
            self.num_patches,
            has_class_token=True,
            may_have_joint_patches=True,
            joint=None if self.text_tower is None else self._joint,
            behind=next(map(_attention_layer, self.vision_tower.encoder.layers[self.num_layers_run :]), None),
            is_complete=self.num_layers_run == len(self.vision_tower.encoder.layers),
        )

    def load_text_tower(self, source: str) -> None:
        """See the base class."""
        self.text_tower = load_clip_text(source, self.hidden_size, self.dtype)

    def _joint(self, features: torch.Tensor) -> torch.Tensor:
        """Project features (B, L, C) into the shared space of image and text, (B, L, C')."""
        normalised = self.vision_tower.post_layernorm(features)
        return normalised if self.text_tower is None else self.text_tower.project(normalised)

    def named_weights(self) -> dict[str, torch.Tensor]:
        """See the base class."""
        return pretrained_weights(CLIPVisionModel, self.name, self.vision_tower)


def _attention_layer(layer: Any) -> AttentionLayer:
    """Describe where to read queries and keys in a layer of transformers' SigLIP or CLIP: after their projections."""
    attention = layer.self_attn
    split = partial(split_heads, attention.num_heads)
    run = partial(layer, attention_mask=None)
    return AttentionLayer(layer, attention.q_proj, attention.k_proj, split, split, attention.scale, run)
