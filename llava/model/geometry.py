"""Checks that the tensors of a checkpoint match its configuration, by names and shapes alone.

Shapes cannot reveal numbers of heads that are scaled together (8 and 4 heads for 4 and 2, without `head_dim`), or the
number of heads of a vision tower. We know these for the published sizes, and compare them, too.
"""

import re
from collections.abc import Mapping, Set
from typing import Any

import torch
from safetensors import safe_open

from llava.model.known_towers import KNOWN_GEOMETRY
from llava.model.tensor_shapes import (
    TOWER_KEY,
    Axis,
    decoder_shapes,
    head_size,
    plain_name,
    projector_shapes,
    tower_shapes,
)
from llava.model.vision import tower_geometry
from stgridpool.checkpoint_files import StoredTensor

_FLOATS = ("F64", "F32", "F16", "BF16")
# Weights in checkpoints that inference does not use.
_HARMLESS = re.compile(r"model\.faster_token|model\.vision_tower\..*\bhead\..*|.*\.inv_freq|.*\.position_ids")
# hidden_size, num_hidden_layers, intermediate_size: num_attention_heads, num_key_value_heads.
_QWEN2_HEADS = {
    (896, 24, 4864): (14, 2),  # 0.5B
    (1536, 28, 8960): (12, 2),  # 1.5B
    (3584, 28, 18944): (28, 4),  # 7B
    (8192, 80, 29568): (64, 8),  # 72B
}


def check_geometry(config: Any, tensors: Mapping[str, StoredTensor], source: str) -> None:
    """Compare a configuration with the tensors of the checkpoint.

    Tensors of quantised checkpoints have other shapes and are not compared.

    Args:
        config: The `LlavaQwenConfig`, whose number of layers is that of the weights.
        tensors: The tensors in the weight files.
        source: Source of the configuration, for messages.

    Raises:
        ValueError: If they contradict each other: heads do not divide the width, a tensor is missing, unknown, of
            another shape or of an integer dtype, or an output layer should be the embeddings but differs from them.
    """
    _check_heads(config, source)
    _check_tower_heads(config, source)
    if getattr(config, "quantization_config", None) is not None:
        return
    stored = {plain_name(name): tensor for name, tensor in tensors.items()}
    wanted = decoder_shapes(config) | projector_shapes(config, stored, source)
    tower = tower_shapes(config, stored, source)
    if holds_tower(tensors) or trains_tower(config):
        wanted |= tower or {}
    for name, axes in wanted.items():
        if name in stored:
            _check_tensor(name, axes, stored[name], source)
    missing = wanted.keys() - stored.keys() - ({"lm_head.weight"} if config.tie_word_embeddings else set())
    unlisted = {name for name in stored if tower is None and name.startswith(TOWER_KEY)}
    refuse_gaps(missing, stored.keys() - wanted.keys() - unlisted, source)
    if config.tie_word_embeddings and "lm_head.weight" in stored:
        _check_tied(stored, source)


def holds_tower(tensors: Mapping[str, StoredTensor]) -> bool:
    """Tell whether the weight files contain any weight of a vision tower."""
    return any(name.startswith(TOWER_KEY) for name in tensors)


def trains_tower(config: Any) -> bool:
    """Tell whether the vision tower was trained, by the configuration; the checkpoint then contains its weights."""
    return "mm_vision_tower" in (config.mm_tunable_parts or "") or bool(config.unfreeze_mm_vision_tower)


def refuse_gaps(missing: Set[str], unknown: Set[str], source: str) -> None:
    """Check that a checkpoint has exactly the weights that the model of `source` uses.

    Raises:
        ValueError: If weights are missing or unknown.
    """
    strange = {name for name in unknown if not _HARMLESS.fullmatch(name)}
    for problem, names in (("lacks", sorted(missing)), ("holds unknown", sorted(strange))):
        if names:
            only = names[0] if len(names) == 1 else ""
            reason = {
                "lm_head.weight": " (with tie_word_embeddings=true there would be none)",
                "model.image_newline": " (mm_patch_merge_type says whether there is one)",
            }.get(only, "")
            raise ValueError(
                f"the checkpoint {problem} weights ({len(names)}): {', '.join(names[:5])}{reason}; the configuration "
                f"is {source}"
            )


def _check_heads(config: Any, source: str) -> None:
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    if getattr(config, "head_dim", None) is None and config.hidden_size % heads:
        raise ValueError(f"{source}: num_attention_heads={heads} must divide hidden_size={config.hidden_size}")
    if heads % groups:
        raise ValueError(f"{source}: num_key_value_heads={groups} must divide num_attention_heads={heads}")
    if head_size(config) % 2:
        raise ValueError(
            f"{source}: num_attention_heads={heads} gives heads of {head_size(config)} numbers; rotary embeddings "
            "need an even number"
        )
    size = (config.hidden_size, config.num_hidden_layers, config.intermediate_size)
    if size in _QWEN2_HEADS and (heads, groups) != _QWEN2_HEADS[size]:
        raise ValueError(
            f"{source}: num_attention_heads={heads}, num_key_value_heads={groups}, but the Qwen2 of "
            f"hidden_size={size[0]} has {_QWEN2_HEADS[size][0]} and {_QWEN2_HEADS[size][1]}"
        )


def _check_tower_heads(config: Any, source: str) -> None:
    geometry = tower_geometry(config)
    for name, known in KNOWN_GEOMETRY.items():
        sizes = ("hidden_size", "intermediate_size", "num_hidden_layers")
        if geometry is None or any(getattr(geometry, size) != known[size] for size in sizes):
            continue
        if geometry.num_attention_heads != known["num_attention_heads"]:
            raise ValueError(
                f"{source}: the vision tower's num_attention_heads={geometry.num_attention_heads}, but {name} has "
                f"{known['num_attention_heads']}"
            )


def _check_tensor(name: str, axes: tuple[Axis, ...], tensor: StoredTensor, source: str) -> None:
    wrong = [axis for axis, length in zip(axes, tensor.shape, strict=False) if axis.length not in (None, length)]
    if wrong or len(axes) != len(tensor.shape):
        settings = ", ".join(dict.fromkeys(axis.settings for axis in wrong or axes))
        raise ValueError(
            f"{source}: {settings} contradicts the weights: {name} would be {tuple(axis.length for axis in axes)}, "
            f"and {tensor.path.name} holds {tensor.shape}"
        )
    if tensor.dtype not in _FLOATS:
        raise ValueError(f"{tensor.path}: {name} must hold floating-point numbers, got {tensor.dtype}")


def _check_tied(stored: Mapping[str, StoredTensor], source: str) -> None:
    """Check that a stored output layer equals the embeddings to which it is tied.

    Raises:
        ValueError: If it differs.
    """
    pair = []
    for name in ("lm_head.weight", "model.embed_tokens.weight"):
        with safe_open(stored[name].path, framework="pt") as file:
            pair.append(file.get_tensor(name))
    if not torch.equal(*pair):
        raise ValueError(
            f"{source}: tie_word_embeddings=true contradicts the weights: lm_head.weight in "
            f"{stored['lm_head.weight'].path.name} differs from model.embed_tokens.weight"
        )
