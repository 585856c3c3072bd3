"""Vision towers on transformers: SigLIP and CLIP encoders that compute one feature per patch.

A tower holds its encoder as `vision_tower`, so that parameter names match the checkpoints. An encoder is built from its
geometry alone; its weights come from the checkpoint, or later from `load_named_weights`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import CLIPVisionModel, SiglipVisionModel

from llava.image_processing import CLIP_MEAN, CLIP_STD, VisionImageProcessor
from llava.model.pool_head import PoolHead, load_pool_head
from llava.model.text_tower import TextTower, load_clip_text, load_siglip_text, missing_text_tower
from llava.model.tower_evidence import AttentionLayer, TowerEvidence, split_heads
from llava.model.tower_files import pretrained_weights
from stgridpool.evidence import Need, Question


class TowerParts(NamedTuple):
    """What a tower computes features with, one after the other."""

    begin: Callable[[torch.Tensor], torch.Tensor]
    """Maps images (B, 3, S, S), on the tower's device and in its dtype, to the input (B, L, C) of the first layer."""
    layers: Sequence[Any]
    """Maps (B, L, C) to the same, given ``attention_mask=None``."""
    finish: Callable[[torch.Tensor], torch.Tensor]
    """Maps the output of the last layer to features (B, P, C)."""


class VisionTower(nn.Module, ABC):
    """Base of all vision towers.

    Attributes:
        name: The checkpoint's `mm_vision_tower`.
        vision_tower: The encoder.
        image_processor: The preprocessing of the encoder.
        image_size: Side of the input, in pixels.
        num_patches_per_side: Side of the feature map, in patches; incomplete patches at the border are ignored.
        hidden_size: Width of the features.
        pool_head: The last layers of a SigLIP tower, if `load_pool_head` has loaded them.
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
        """Number of patches per image."""
        return self.num_patches_per_side**2

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights."""
        weights: torch.Tensor = next(self.vision_tower.parameters())
        return weights.dtype

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        weights: torch.Tensor = next(self.vision_tower.parameters())
        return weights.device

    def load_model(self, device_map: Any = None) -> None:
        """Do nothing: a tower is loaded with its model. Scripts call this if `is_loaded` is false."""
        del device_map

    def load_named_weights(self) -> None:
        """Load the weights of the tower `name`, a local folder or a hub name, into the encoder.

        Raises:
            ValueError: If that tower lacks weights, or the weights of this one are offloaded.
        """
        if any(parameter.is_meta for parameter in self.parameters()):
            raise ValueError(f"the weights of {self.name} cannot be loaded while the vision tower is offloaded")
        self.vision_tower.load_state_dict(self.named_weights())

    @abstractmethod
    def named_weights(self) -> dict[str, torch.Tensor]:
        """Read the weights of the tower `name`, by the parameter names of the encoder."""

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Compute features (B, n*n, C), row-major, of images (B, 3, S, S)."""
        return self.features(self.placed(pixel_values))

    def placed(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return images on the tower's device and in its dtype."""
        offloaded = self.device.type == "meta"  # the layers then fetch their inputs themselves
        return pixel_values.to(pixel_values.device if offloaded else self.device, self.dtype)

    def parts(self) -> "TowerParts | None":
        """Return what `features` consists of, for steps between layers; None if that is not known."""
        return None

    @abstractmethod
    def features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Compute the output of `forward` for images on the tower's device and in its dtype."""

    @abstractmethod
    def evidence(self) -> TowerEvidence:
        """Describe the evidence that this tower can compute besides its features."""

    def evidence_offered(self) -> frozenset[type[Need]]:
        """Return the kinds of evidence that this tower can compute, see `TowerEvidence.offered`."""
        return self.evidence().offered()

    def check_needs(self, needs: Collection[Need]) -> None:
        """Check that this tower or its text half can compute the evidence, see `TowerEvidence.check`.

        Args:
            needs: The evidence needed; among needs about the question, only its text in the tower's space is checked.

        Raises:
            ValueError: If the tower cannot compute some of it.
        """
        if Question("tower") in needs and self.text_tower is None:
            raise ValueError(missing_text_tower(Question("tower"), self.name))
        self.evidence().check([need for need in needs if need.from_tower and not need.made_by_steps])

    def with_evidence(
        self, pixel_values: torch.Tensor, needs: Collection[Need]
    ) -> tuple[torch.Tensor, dict[Need, torch.Tensor]]:
        """Encode images and compute evidence about them in the same pass.

        Args:
            pixel_values: Images (B, 3, S, S).
            needs: The evidence to compute. Layers are counted back from the one whose output is used as features.

        Returns:
            The output of `forward`, and float32 evidence on the same device: (B * n * n,) or (B * n * n, d) for each
            patch in (image, row, column) order, (B, C) for `FrameVectors`. Class tokens have no row, whatever
            `mm_vision_select_feature` is.

        Raises:
            ValueError: If the tower cannot compute some of the evidence.
        """
        return self.evidence().collect(lambda: self(pixel_values), needs)

    def load_pool_head(self, source: str) -> None:
        """Load SigLIP's pooling head from the original tower, a folder or hub name, for evidence that needs it.

        Raises:
            ValueError: If this is not a SigLIP tower, or it was not made from the model `source`.
        """
        raise ValueError(f"pool_head={source!r}: only SigLIP towers have a pooling head, and {self.name} is none")

    def load_text_tower(self, source: str) -> None:
        """Load the text half of the original model, a folder or hub name, for evidence that needs it.

        Raises:
            ValueError: If this is not a SigLIP or CLIP tower, or it was not made from the model `source`.
        """
        raise ValueError(f"text_tower={source!r}: only SigLIP and CLIP towers may have a text half, not {self.name}")


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


def check_select_feature(select_feature: str, known: tuple[str, ...]) -> None:
    """Check that `select_feature` is one of `known`.

    Raises:
        ValueError: If it is not.
    """
    if select_feature not in known:
        raise ValueError(f"mm_vision_select_feature must be one of {', '.join(known)}, got {select_feature!r}")


def _attention_layer(layer: Any) -> AttentionLayer:
    """Describe where to read queries and keys in a layer of transformers' SigLIP or CLIP: after their projections."""
    attention = layer.self_attn
    split = partial(split_heads, attention.num_heads)
    return AttentionLayer(layer, attention.q_proj, attention.k_proj, split, split, attention.scale)
