"""VisionTower: the base of all vision towers.

A tower holds its encoder as `vision_tower`, so that parameter names match the checkpoints. An encoder is built from its
geometry alone; its weights come from the checkpoint, or later from `load_named_weights`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from llava.image_processing import VisionImageProcessor
from llava.model.pool_head import PoolHead
from llava.model.text_tower import TextTower, missing_text_tower
from llava.model.tower_evidence import TowerEvidence
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
        """Read the weights of the tower `name`, by the parameter names of the encoder.

        Raises:
            ValueError: If the tower lacks weights, or `name` does not say where they are.
        """

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
        raise ValueError(f"pool_head={source!r}: only SigLIP towers have a pooling head, and {self.name} is not one")

    def load_text_tower(self, source: str) -> None:
        """Load the text half of the original model, a folder or hub name, for evidence that needs it.

        Raises:
            ValueError: If this is not a SigLIP or CLIP tower, or it was not made from the model `source`.
        """
        raise ValueError(f"text_tower={source!r}: only SigLIP and CLIP towers may have a text half, not {self.name}")


def check_select_feature(select_feature: str, known: tuple[str, ...]) -> None:
    """Check that `select_feature` is one of `known`.

    Raises:
        ValueError: If it is not.
    """
    if select_feature not in known:
        raise ValueError(f"mm_vision_select_feature must be one of {', '.join(known)}, got {select_feature!r}")
