"""Whether the tensors of a checkpoint are those that its configuration asks for, told from names and shapes alone.

What shapes cannot show: numbers of heads that are scaled together (8 and 4 heads for 4 and 2, where no `head_dim` is
given), and those of a vision tower. Of the published sizes they are known, so that these are compared, too.
"""

import re
from collections.abc import Mapping, Set
from typing import Any

import torch
from safetensors import safe_open

from llava.model.checkpoint_files import StoredTensor
from llava.model.tensor_shapes import (
    TOWER_KEY,
    Axis,
    decoder_shapes,
    head_size,
    plain_name,
    projector_shapes,
    tower_shapes,
)
from llava.model.vision import KNOWN_GEOMETRY, tower_geometry

_FLOATS = ("F64", "F32", "F16", "BF16")
# Weights that checkpoints hold and that no inference reads.
_HARMLESS = re.compile(r"model\.faster_token|model\.vision_tower\..*\bhead\..*|.*\.inv_freq|.*\.position_ids")
# hidden_size, num_hidden_layers, intermediate_size: num_attention_heads, num_key_value_heads.
_QWEN2_HEADS = {
    (896, 24, 4864): (14, 2),  # 0.5B
    (1536, 28, 8960): (12, 2),  # 1.5B
    (3584, 28, 18944): (28, 4),  # 7B
    (8192, 80, 29568): (64, 8),  # 72B
}


def check_geometry(config: Any, tensors: Mapping[str, StoredTensor], source: str) -> None:
    """Compares a configuration with the tensors of the checkpoint.

    The tensors of a checkpoint that is stored quantised have other shapes and are not compared.

    Args:
        config: The `LlavaQwenConfig`; the number of its layers is the weights'.
        tensors: What the weight files hold.
        source: Where the configuration stands, for messages.

    Raises:
        ValueError: They contradict each other: heads that do not divide the width, a tensor that is missing, unknown,
            of another shape or of a dtype without fractions, or an output layer that should be the embeddings.
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
    """Whether the weight files hold any weight of a vision tower."""
    return any(name.startswith(TOWER_KEY) for name in tensors)


def trains_tower(config: Any) -> bool:
    """Whether the configuration says that the vision tower was trained, so that its weights are the checkpoint's."""
    return "mm_vision_tower" in (config.mm_tunable_parts or "") or bool(config.unfreeze_mm_vision_tower)


def refuse_gaps(missing: Set[str], unknown: Set[str], source: str) -> None:
    """Raises ValueError for weights that a checkpoint lacks, or that the model of `source` has no use for."""
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
    """Raises ValueError where an output layer is stored that differs from the embeddings that it should be."""
    pair = []
    for name in ("lm_head.weight", "model.embed_tokens.weight"):
        with safe_open(stored[name].path, framework="pt") as file:
            pair.append(file.get_tensor(name))
    if not torch.equal(*pair):
        raise ValueError(
            f"{source}: tie_word_embeddings=true contradicts the weights: lm_head.weight in "
            f"{stored['lm_head.weight'].path.name} differs from model.embed_tokens.weight"
        )
