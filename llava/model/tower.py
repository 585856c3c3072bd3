"""Vision towers on transformers: SigLIP and CLIP encoders that give one feature per patch.

A tower holds its encoder as `vision_tower`, so that parameter names are those of the checkpoints. An encoder is built
from its geometry alone; its weights come with the checkpoint, or afterwards from `load_named_weights`.
"""

from abc import ABC, abstractmethod
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import CLIPVisionModel, PreTrainedModel, SiglipVisionModel

from llava.image_processing import CLIP_MEAN, CLIP_STD, VisionImageProcessor
from llava.model.checkpoint_files import check_no_pointer, is_hub_name, one_line, stored_tensors

OPEN_CLIP_PREFIX = "open_clip_hub:"


class VisionTower(nn.Module, ABC):
    """What the towers share.

    Attributes:
        name: The checkpoint's `mm_vision_tower`.
        vision_tower: The encoder.
        image_processor: Its preprocessing.
        image_size: Side of the input, in pixels.
        num_patches_per_side: Side of the feature map, in patches; incomplete patches at the border are not seen.
        hidden_size: Width of the features.
    """

    vision_tower: Any
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

    def named_weights(self) -> dict[str, torch.Tensor]:
        """See the base class."""
        return _pretrained_weights(SiglipVisionModel, self)


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

    def named_weights(self) -> dict[str, torch.Tensor]:
        """See the base class."""
        return _pretrained_weights(CLIPVisionModel, self)


def check_tower_files(name: str) -> None:
    """Looks at the weight files of a tower that lies in a folder, before they are needed.

    A tower may come as `pytorch_model.bin`, since OpenAI's CLIP is published as nothing else; it is read as weights
    only, so that it runs no code.

    Raises:
        ValueError: The folder is not there, or a file is missing, damaged, cut off or a Git LFS pointer.
    """
    folder = Path(name)
    if not folder.is_dir():
        if not is_hub_name(name) and not name.startswith(OPEN_CLIP_PREFIX):
            raise ValueError(missing_tower(name))
    elif any(folder.glob("model.safetensors*")) or not any(folder.glob("*.bin")):
        stored_tensors(folder)
    else:
        for path in folder.glob("*.bin"):
            check_no_pointer(path)


def missing_tower(name: str) -> str:
    """The message about a vision tower whose folder is not there."""
    return (
        f"mm_vision_tower={name!r} of config.json names a folder that is not there: put the tower into it, or set "
        "mm_vision_tower to where it lies or to its hub name, such as google/siglip-so400m-patch14-384"
    )


def check_select_feature(select_feature: str, known: tuple[str, ...]) -> None:
    """Raises ValueError unless `select_feature` is one of `known`."""
    if select_feature not in known:
        raise ValueError(f"mm_vision_select_feature must be one of {', '.join(known)}, got {select_feature!r}")


def _pretrained_weights(model_class: type[PreTrainedModel], tower: VisionTower) -> dict[str, torch.Tensor]:
    """Weights of the model that `tower` is named after, all that the tower needs."""
    check_tower_files(tower.name)
    try:
        loaded: Any = model_class.from_pretrained(
            tower.name,
            config=tower.vision_tower.config,
            dtype=tower.dtype,
            ignore_mismatched_sizes=True,  # judged below, with names and shapes
            output_loading_info=True,
        )
    except (OSError, RuntimeError, SafetensorError, UnpicklingError) as error:
        raise ValueError(f"the weights of mm_vision_tower={tower.name!r} cannot be read: {one_line(error)}") from error
    model, info = loaded
    if info["missing_keys"]:
        raise ValueError(f"{tower.name} lacks weights of the vision tower: {sorted(info['missing_keys'])[:5]}")
    if info["mismatched_keys"]:
        key, stored, wanted = sorted(info["mismatched_keys"])[0]
        raise ValueError(
            f"the weights of {tower.name} contradict its configuration: {key} would be {tuple(wanted)}, and the file "
            f"holds {tuple(stored)}"
        )
    return model.state_dict()
