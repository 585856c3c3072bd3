"""PoolHead: SigLIP's pooling head, for evidence; LLaVA's checkpoints do not contain it.

SigLIP pools an image by attention: a learned probe attends to all patches. LLaVA uses the output of the second to last
layer as features, and drops the last layer, the last normalisation and the head. We load all three from the checkpoint
of the original tower, since the head was trained on the output of the last layer. If the tower was trained further with
LLaVA, the head sees its features through the original last layer.

Source: https://arxiv.org/abs/2303.15343 (SigLIP), https://arxiv.org/abs/2106.04560 (attention pooling).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import SiglipVisionModel

from llava.model.capture import captured
from stgridpool.checkpoint_files import StoredTensor, checkpoint_folder, stored_tensors

_PREFIX = (
    "vision_model."  # of the tower's tensors in checkpoints of older transformers, and in those of the whole model
)


@dataclass(frozen=True, eq=False)
class PoolHead:
    """The last layers of a SigLIP tower. It is not a module, so that a model is saved without it, as it was loaded.

    Attributes:
        name: Folder or hub name from which it was loaded.
        layer: The last layer.
        norm: The last normalisation.
        head: The pooling head.
    """

    name: str
    layer: nn.Module
    norm: nn.Module
    head: nn.Module

    def modules(self) -> nn.ModuleList:
        """Return all parts, to move them or to read their weights."""
        return nn.ModuleList([self.layer, self.norm, self.head])

    def run(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Pool features (B, P, C), the output of the layer before the last one.

        Returns:
            Attention of the probe to each patch (B, P), averaged over heads, and the pooled vectors (B, C).
        """
        self.modules().to(features.device)  # the model may have been moved since
        attention: Any = self.head.attention
        with captured([attention]) as outputs:
            vectors = self.head(self.norm(self.layer(features, attention_mask=None)))
        _, weights = outputs[attention]  # (B, 1, P)
        return weights.squeeze(1), vectors


def pool_head_tensors(source: str) -> dict[str, StoredTensor]:
    """List the tensors of the SigLIP tower in the checkpoint `source`, a folder or hub name.

    Raises:
        ValueError: If there is no such checkpoint, its files are damaged, or it does not contain a pooling head.
    """
    try:
        stored = stored_tensors(checkpoint_folder(source))
    except ValueError as error:
        raise ValueError(f"pool_head={source!r}: {error}") from error
    tensors = {name.removeprefix(_PREFIX): tensor for name, tensor in stored.items()}
    if "head.probe" not in tensors:
        raise ValueError(
            f"pool_head={source!r} holds no pooling head: name the SigLIP model that the vision tower was made from, "
            "such as google/siglip-so400m-patch14-384"
        )
    return tensors


def load_pool_head(source: str, tower: SiglipVisionModel) -> PoolHead:
    """Load only the last layers of a SigLIP tower, in the dtype and on the device of `tower`.

    Args:
        source: Folder or hub name of the original model, in safetensors files.
        tower: The tower without its last layer.

    Raises:
        ValueError: If `source` is not a SigLIP model with the geometry of `tower` and one more layer.
    """
    tensors = pool_head_tensors(source)
    config: Any = copy.deepcopy(tower.config)
    depth = config.num_hidden_layers
    config.num_hidden_layers, config.vision_use_head = 1, True
    config._attn_implementation = tower.config._attn_implementation
    with torch.device("meta"):
        whole: Any = SiglipVisionModel(config).eval()
    layers = 1 + max((int(name.split(".")[2]) for name in tensors if name.startswith("encoder.layers.")), default=-1)
    if layers != depth + 1:
        raise ValueError(f"pool_head={source!r} has {layers} layers, and the tower it belongs to has {depth + 1}")
    weights = next(tower.parameters())
    device = torch.device("cpu") if weights.is_meta else weights.device
    parts = {f"encoder.layers.{depth}.": whole.encoder.layers[0], "post_layernorm.": whole.post_layernorm}
    parts["head."] = whole.head
    for prefix, part in parts.items():
        part.load_state_dict(_read(source, part, prefix, tensors, device, weights.dtype), assign=True)
    return PoolHead(source, *parts.values())


def _read(
    source: str,
    part: nn.Module,
    prefix: str,
    tensors: dict[str, StoredTensor],
    device: torch.device,
    dtype: torch.dtype,
) -> dict[str, Tensor]:
    """Read the weights of `part`, whose names start with `prefix` in the checkpoint."""
    weights = {}
    for name, wanted in part.state_dict().items():
        stored = tensors.get(prefix + name)
        if stored is None or stored.shape != tuple(wanted.shape):
            found = "is missing" if stored is None else f"is {stored.shape}"
            raise ValueError(
                f"pool_head={source!r} does not fit the vision tower: {prefix}{name} must be {tuple(wanted.shape)} and "
                f"{found}; name the SigLIP model that the tower was made from"
            )
        with safe_open(stored.path, "pt") as file:
            stored_name = prefix + name if prefix + name in file.keys() else _PREFIX + prefix + name  # noqa: SIM118
            weights[name] = file.get_tensor(stored_name).to(device, dtype)
    return weights
