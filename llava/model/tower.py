"""Vision towers on transformers: SigLIP and CLIP encoders that give one feature per patch.

A tower holds its encoder as `vision_tower`, so that parameter names are those of the checkpoints. An encoder is built
from its geometry alone; its weights come with the checkpoint, or afterwards from `load_named_weights`.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import CLIPVisionModel, SiglipVisionModel

from llava.image_processing import CLIP_MEAN, CLIP_STD, VisionImageProcessor
from llava.model.pool_head import PoolHead, load_pool_head
from llava.model.text_tower import TextTower, load_clip_text, load_siglip_text, missing_text_tower
from llava.model.tower_evidence import AttentionLayer, TowerEvidence, split_heads
from llava.model.tower_files import pretrained_weights
from stgridpool.evidence import Need, Question


class VisionTower(nn.Module, ABC):
    """What the towers share.

    Attributes:
        name: The checkpoint's `mm_vision_tower`.
        vision_tower: The encoder.
        image_processor: Its preprocessing.
        image_size: Side of the input, in pixels.
        num_patches_per_side: Side of the feature map, in patches; incomplete patches at the border are not seen.
        hidden_size: Width of the features.
        pool_head: The end of a SigLIP tower, if `load_pool_head` has loaded it.
        text_tower: The text half, if `load_text_tower` has loaded it.
    """

    vision_tower: Any
    pool_head: PoolHead | None = None
    text_tower: TextTower | None = None
    is_loaded = True  # a tower is loaded with its model; scripts ask

    def __init__(
        self, name: str, vision_tower: nn.Module, processor: VisionImageProcessor, patch_size: int, hidden_size: int
    ) -> None:
        super().__init__()
        self.name = name
        self.vision_tower = vision_tower
        self.image_processor = processor
        self.image_size = processor.image_size
        self.num_patches_per_side = self.image_size // patch_size
        self.hidden_size = hidden_size

    @property
    def num_patches(self) -> int:
        """Patches per image."""
        return self.num_patches_per_side**2

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights."""
        return next(self.vision_tower.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.vision_tower.parameters()).device

    def load_model(self, device_map: Any = None) -> None:
        """Does nothing: a tower is loaded with its model. Scripts call it where `is_loaded` is false."""
        del device_map

    def load_named_weights(self) -> None:
        """Fills the encoder with the weights of the tower that it is named after, a local folder or a hub name.

        Raises:
            ValueError: That tower lacks weights, or this one's are offloaded.
        """
        if any(parameter.is_meta for parameter in self.parameters()):
            raise ValueError(f"the weights of {self.name} cannot be loaded while the vision tower is offloaded")
        self.vision_tower.load_state_dict(self.named_weights())

    @abstractmethod
    def named_weights(self) -> dict[str, torch.Tensor]:
        """Weights of the tower that this one is named after, under the encoder's parameter names."""

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Features (B, n*n, C), row-major, of images (B, 3, S, S)."""
        offloaded = self.device.type == "meta"  # the layers then fetch their inputs themselves
        return self.features(pixel_values.to(pixel_values.device if offloaded else self.device, self.dtype))

    @abstractmethod
    def features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """What `forward` gives, for images on the tower's device and of its dtype."""

    @abstractmethod
    def evidence(self) -> TowerEvidence:
        """Describe what this tower can tell besides its features."""

    def evidence_offered(self) -> frozenset[type[Need]]:
        """Name the kinds of evidence that this tower can give; see `TowerEvidence.offered`."""
        return self.evidence().offered()

    def check_needs(self, needs: Collection[Need]) -> None:
        """Raise ValueError where this tower or its text half cannot give what is asked for; see `TowerEvidence.check`.

        Args:
            needs: What is asked for; of what looks at the question, only its text in the tower's space counts.
        """
        if Question("tower") in needs and self.text_tower is None:
            raise ValueError(missing_text_tower(Question("tower"), self.name))
        self.evidence().check([need for need in needs if need.from_tower])

    def with_evidence(
        self, pixel_values: torch.Tensor, needs: Collection[Need]
    ) -> tuple[torch.Tensor, dict[Need, torch.Tensor]]:
        """Encode images and compute evidence about them in the same pass.

        Args:
            pixel_values: Images (B, 3, S, S).
            needs: What to compute besides the features. Layers are counted back from the one whose output is taken as
                features.

        Returns:
            What `forward` gives, and float32 evidence on the same device: (B * n * n,) or (B * n * n, d) for each patch
            in (image, row, column) order, (B, C) for `FrameVectors`. Class tokens have no row, whatever
            `mm_vision_select_feature` says.

        Raises:
            ValueError: This tower cannot give what is asked for.
        """
        return self.evidence().collect(lambda: self(pixel_values), needs)

    def load_pool_head(self, source: str) -> None:
        """Load SigLIP's pooling head from the original tower, a folder or hub name, for the evidence that needs it.

        Raises:
            ValueError: This is no SigLIP tower, or `source` is not the model that it was made from.
        """
        raise ValueError(f"pool_head={source!r}: only SigLIP towers have a pooling head, and {self.name} is none")

    def load_text_tower(self, source: str) -> None:
        """Load the text half of the original model, a folder or hub name, for the evidence that needs it.

        Raises:
            ValueError: This is no SigLIP or CLIP tower, or `source` is not the model that it was made from.
        """
        raise ValueError(f"text_tower={source!r}: only SigLIP and CLIP towers may have a text half, not {self.name}")


class SiglipTower(VisionTower):
    """SigLIP without its last layer, last normalisation and head: the features that LLaVA-NeXT trains on.

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
        """Output of the last layer that is kept."""
        embeds = self.vision_tower.embeddings(pixel_values)
        return self.vision_tower.encoder(inputs_embeds=embeds).last_hidden_state

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
        select_feature: `patch`: without the class token; `cls_patch`: with it.

    Raises:
        ValueError: `select_layer` or `select_feature` names nothing.
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
        """The selected hidden state; later layers are not run."""
        hidden = self.vision_tower.pre_layrnorm(self.vision_tower.embeddings(pixel_values))
        for layer in self.vision_tower.encoder.layers[: self.num_layers_run]:
            hidden = layer(hidden, attention_mask=None)
        return hidden[:, self.first_token :]

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
        )

    def load_text_tower(self, source: str) -> None:
        """See the base class."""
        self.text_tower = load_clip_text(source, self.hidden_size, self.dtype)

    def _joint(self, features: torch.Tensor) -> torch.Tensor:
        """Features (B, L, C) in the space of image and text, (B, L, C')."""
        normalised = self.vision_tower.post_layernorm(features)
        return normalised if self.text_tower is None else self.text_tower.project(normalised)

    def named_weights(self) -> dict[str, torch.Tensor]:
        """See the base class."""
        return pretrained_weights(CLIPVisionModel, self.name, self.vision_tower)


def check_select_feature(select_feature: str, known: tuple[str, ...]) -> None:
    """Raises ValueError unless `select_feature` is one of `known`."""
    if select_feature not in known:
        raise ValueError(f"mm_vision_select_feature must be one of {', '.join(known)}, got {select_feature!r}")


def _attention_layer(layer: Any) -> AttentionLayer:
    """Where a layer of transformers' SigLIP or CLIP shows its queries and keys: behind their projections."""
    attention = layer.self_attn
    split = partial(split_heads, attention.num_heads)
    return AttentionLayer(layer, attention.q_proj, attention.k_proj, split, split, attention.scale)
